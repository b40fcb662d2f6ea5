"""The schedule: what it asks for and when, known answers on made-up gradients, state."""

from dataclasses import fields

import pytest
import torch

from dograph.errors import UserError
from dograph.mixers import LOSS, BatchSignals, DoGraphSchedule, Probe, Sketch
from dograph.mixers.dry_run import dry_run
from dograph.mixers.schedule_settings import ProblemSettings
from dograph.signals.batch_signals import DomainText, EmbeddingGradients, TokenGradients

DOMAINS = ("copy", "noise", "twin_a", "twin_b")
VOCABULARY, RANK, LENGTH, BATCH = 6, 8, 12, 64
INTERVAL, MEASURE = 5, 20
BASIS = torch.eye(RANK)
DIRECTIONS = {
    "copy": BASIS[0],
    "noise": 0 * BASIS[0],
    "twin_a": BASIS[2],
    "twin_b": BASIS[2],
    "unseen": BASIS[0],
    **{f"alike_{index}": BASIS[0] + BASIS[1 + index] for index in range(4)},
}
"""A direction of gradients for each source; the twins share theirs, noise has none."""


def ready(domains=DOMAINS, target=None, unseen=(), tokens=None, **options):
    own = {field.name for field in fields(ProblemSettings)} & options.keys()
    problem = ProblemSettings(**{name: options.pop(name) for name in own})
    settings = {"interval": INTERVAL, "measure": MEASURE, "skip": 0, "rank": RANK, **options}
    settings.setdefault("text_tokens", 0)  # gradients alone, unless text is given
    mixer = DoGraphSchedule(problem=problem, **settings)
    tokens = [10**9] * len(domains) if tokens is None else tokens
    mixer.setup(domains, tokens, BATCH, VOCABULARY, target, unseen, texts(mixer, domains))
    return mixer


STYLES = {"copy": [0, 1, 2], "noise": [3, 3, 4], "twin_a": [4, 5, 3], "twin_b": [4, 5, 3]}
"""A run of tokens that a domain's text repeats, among random ones."""
STYLES["unseen"] = STYLES["copy"]


def texts(mixer, domains):
    """(60, 10) tokens of each domain, if the mixer reads text."""
    if not mixer.request(DomainText):
        return ()
    generator = torch.Generator().manual_seed(0)
    found = []
    for name in domains:
        text = torch.tensor(STYLES[name] * 3 + STYLES[name][:1]).repeat(60, 1)
        random = torch.randint(VOCABULARY, text.shape, generator=generator)
        found.append(torch.where(torch.rand(text.shape, generator=generator) < 0.3, random, text))
    return found


def read(domains, domain, seed, noise=0.3):
    """Token gradients of (n,) sequences, each around its domain's direction."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(domain), LENGTH
    tokens = torch.randint(VOCABULARY, shape, generator=generator)
    means = torch.stack([DIRECTIONS[domains[index]] for index in domain.tolist()])
    gradients = noise * torch.randn(*shape, RANK, generator=generator) + means[:, None]
    return TokenGradients(domain, tokens, gradients)


def signals_at(mixer, step, losses=None, noise=0.3):
    """A batch of all sources in turn, and a probe where it is asked for."""
    drawn = mixer.trained.nonzero().flatten()
    domain = drawn[torch.arange(BATCH) % len(drawn)]
    loss = torch.ones(BATCH) if losses is None else losses[domain]
    signals = BatchSignals(step, domain, loss)
    if mixer.needs_at(step, Sketch):
        signals.sketch = torch.randn(BATCH, 16, generator=torch.Generator().manual_seed(step))
    if mixer.needs_at(step, EmbeddingGradients):
        signals.token_gradients = read(mixer.domains, domain, 2 * step, noise)
    probed = [index for index, name in enumerate(mixer.domains) if mixer.probes(name)]
    if probed and mixer.needs_at(step, Probe):
        signals.probe_domain = torch.tensor(probed * 16)
        probe = read(mixer.domains, signals.probe_domain, 2 * step + 1, noise)
        signals.probe_gradients = probe
    return signals


def run(mixer, steps=40, first=0, **options):
    for step in range(first, first + steps):
        mixer.step(signals_at(mixer, step, **options))
    return dict(zip(mixer.domains, mixer.weights.tolist(), strict=True))


def test_signals_are_asked_for_only_where_they_are_used():
    mixer = ready(target="copy")
    read_at = [mixer.needs_at(step, EmbeddingGradients) for step in range(30)]
    assert read_at == [True] * MEASURE + [False] * 10
    probed = [mixer.needs_at(step, Probe) for step in range(30)]
    assert probed == 4 * [False, False, False, False, True] + [False] * 10
    assert not any(mixer.needs_at(step, Sketch) for step in range(30))
    late = ready(target="copy", skip=12)
    read_at = [step for step in range(30) if late.needs_at(step, EmbeddingGradients)]
    assert read_at == list(range(12, MEASURE))
    assert [step for step in range(30) if late.needs_at(step, Probe)] == [14, 19]
    assert all(ready(reweigh=0.1).needs_at(step, Sketch) for step in range(30))


def test_only_unseen_domains_of_the_target_are_probed():
    domains = ("copy", "noise", "unseen", "other")
    mixer = ready(domains, target={"copy": 1, "unseen": 1}, unseen=["unseen", "other"])
    assert [mixer.probes(name) for name in domains] == [False, False, True, False]


@pytest.mark.parametrize("pair_rows", [64, 16])
def test_the_text_decides_before_the_first_step(pair_rows):
    domains = ("copy", "noise", "twin_a", "unseen")
    options = {"measure": 0, "text_tokens": 600, "pair_rows": pair_rows}
    mixer = ready(domains, target="unseen", unseen=["unseen"], **options)
    copy, noise, twin, unseen = mixer.weights.tolist()
    assert copy > 0.5 and unseen == 0 and min(noise, twin) >= 0.1 / 3 - 1e-9
    assert mixer.sampling_weights.tolist() == mixer.weights.tolist()
    assert mixer.text == ()
    kinds = (EmbeddingGradients, Probe, Sketch)
    assert not any(mixer.needs_at(step, kind) for step in range(30) for kind in kinds)
    assert mixer.snapshot().schedule.updates[0].step == 0
    assert run(mixer)["copy"] == pytest.approx(copy, abs=1e-4)


def test_alike_texts_share_what_the_target_needs():
    mixer = ready(target="twin_a", measure=0, text_tokens=600)
    copy, noise, one, other = mixer.weights.tolist()
    assert one == pytest.approx(other, abs=0.1)
    assert one + other > 0.7 and max(copy, noise) < 0.15


def test_an_even_target_and_the_worst_one_start_at_the_prior():
    for target in (None, "worst"):
        options = {"measure": 0, "text_tokens": 600, "least_spread": 0.3}
        weights = ready(target=target, **options).weights
        torch.testing.assert_close(weights, torch.full((4,), 0.25).double(), atol=1e-3, rtol=0)


def test_gradients_join_the_text_once_they_are_measured():
    text_alone = ready(target="twin_a", measure=0, text_tokens=600)
    both = ready(target="twin_a", text_tokens=600)
    assert both.weights.tolist() == [0.25] * 4  # the prior is drawn while it is measured
    run(both)
    assert both.snapshot().schedule.updates[0].step == MEASURE
    gradients = ready(target="twin_a")
    run(gradients)
    for index in range(4):
        ends = sorted(each.weights[index].item() for each in (text_alone, gradients))
        assert ends[0] - 0.05 <= both.weights[index].item() <= ends[1] + 0.05


def test_the_text_must_be_given():
    mixer = DoGraphSchedule()
    with pytest.raises(UserError, match="give setup `text`"):
        mixer.setup(DOMAINS, [10**9] * 4, BATCH, VOCABULARY)


def test_the_useful_source_gains_and_noise_falls_to_the_floor():
    weights = run(ready(target="copy", floor=0.2))
    assert weights["copy"] == pytest.approx(1 - 3 * 0.05, abs=0.01)
    for name in ("noise", "twin_a", "twin_b"):
        assert weights[name] == pytest.approx(0.2 / 4, abs=0.01)


def test_curvature_counts_what_twins_have_in_common_once():
    """A target half copy, half twin: each direction is drawn as much, so a twin half as much."""
    target = {"copy": 0.5, "twin_a": 0.5}
    weights = run(ready(target=target, kappa=1.0, prior_pull=0.01), noise=0.1)
    assert weights["twin_a"] == pytest.approx(weights["twin_b"], abs=0.1)  # noise splits them
    assert weights["twin_a"] + weights["twin_b"] == pytest.approx(weights["copy"], abs=0.05)
    without = run(ready(target=target, kappa=0.0, prior_pull=1.0))
    assert without["twin_a"] + without["twin_b"] == pytest.approx(2 * without["copy"], abs=0.1)


@pytest.mark.parametrize("option", [{"laplacian": 60.0}, {"max_difference": 0.1}])
def test_the_graph_holds_neighbours_together(option):
    """Every source is joined to every other one: none may leave the prior for itself."""
    assert run(ready(target="copy"))["copy"] > 0.8
    held = run(ready(target="copy", neighbours=3, **option))
    assert 0.25 < held["copy"] < 0.3


def test_an_unseen_target_is_never_drawn_and_its_probes_decide():
    domains = ("copy", "noise", "unseen")
    mixer = ready(domains, target="unseen", unseen=["unseen"], kappa=0.5, prior_pull=0.5)
    assert mixer.weights.tolist() == [0.5, 0.5, 0.0]
    weights = run(mixer)
    assert weights["unseen"] == 0
    # K = diag(4, 0), Kτ̂ = (2, 0): −2 + 4κa + ν(4a − 2) = 0 for the share a of copy.
    assert weights["copy"] == pytest.approx(0.75, abs=0.02)
    assert mixer.snapshot().schedule.sources == ("copy", "noise")


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_an_even_target_of_sources_that_are_alike_leaves_the_prior(noise):
    domains = tuple(f"alike_{index}" for index in range(4))
    weights = run(ready(domains), noise=noise)
    assert list(weights.values()) == pytest.approx([0.25] * 4, abs=0.04 * noise)


def test_gradients_of_any_size_give_the_same_weights(monkeypatch):
    plain = run(ready(target="copy", kappa=1.0))
    larger = {name: 1e4 * direction for name, direction in DIRECTIONS.items()}
    monkeypatch.setattr("test_dograph_schedule.DIRECTIONS", larger)
    assert run(ready(target="copy", kappa=1.0), noise=0.3e4) == pytest.approx(plain, abs=1e-4)


def test_a_source_that_repeats_gives_way_to_its_twin():
    tokens = [10**9, 10**9, 40, 10**9]
    mixer = ready(target="twin_a", tokens=tokens, kappa=0.0, prior_pull=1.0)
    first = run(mixer, steps=MEASURE)
    assert first["twin_a"] < first["twin_b"]
    later = run(mixer, steps=60, first=MEASURE)  # 32 epochs of twin_a
    assert later["twin_a"] < first["twin_a"] < 0.5
    assert later["twin_b"] > later["twin_a"] + 0.1
    endless = ready(target="twin_a", tokens=tokens, kappa=0.0, prior_pull=1.0, repetition=1e9)
    assert run(endless)["twin_a"] == pytest.approx(run(endless)["twin_b"], abs=0.03)


def test_the_worst_domain_is_followed():
    mixer = ready(target="worst", kappa=0.5)
    even = run(ready(kappa=0.5))
    weights = run(mixer, losses=torch.tensor([3.0, 1.0, 1.0, 1.0]))
    assert weights == pytest.approx(even)  # nothing has been validated
    # Held-out text of twin_b is harder than what it trains on.
    mixer.validated({"copy": 3.5, "noise": 1.0, "twin_a": 1.0, "twin_b": 2.0})
    weights = run(mixer, 10, first=40, losses=torch.tensor([3.0, 1.0, 1.0, 1.0]))
    assert max(weights, key=weights.get) == "copy" and weights["copy"] > 0.5
    assert min(weights.values()) >= 0.125 - 1e-9  # half its part: any may become the worst
    weights = run(mixer, 10, first=50, losses=torch.tensor([1.0, 1.0, 1.0, 1.0]))
    assert weights["twin_a"] + weights["twin_b"] > 0.6


def test_the_prior_is_where_it_starts_where_it_is_pulled_to_and_what_it_keeps():
    prior = {"copy": 0.1, "noise": 0.2, "twin_a": 0.3, "twin_b": 0.4}
    mixer = ready(target="copy", prior=prior, floor=0.3)
    assert mixer.weights.tolist() == pytest.approx(list(prior.values()))
    weights = run(mixer)
    assert all(weights[name] >= 0.3 * prior[name] - 1e-9 for name in prior)
    assert weights["copy"] > 0.6
    pulled = run(ready(target="copy", prior=prior, prior_pull=1e4))
    assert pulled == pytest.approx(prior, abs=1e-3)


@pytest.mark.parametrize("skip", [0, 8])
def test_the_prior_is_drawn_while_it_is_measured(skip):
    mixer = ready(target="copy", skip=skip)
    run(mixer)
    assert [step for step, _ in mixer.history] == list(range(0, 41, INTERVAL))
    for step, weights in mixer.history:
        assert weights[0].item() == pytest.approx(0.925 if step >= MEASURE else 0.25, abs=0.01)
    settled = torch.stack([weights for step, weights in mixer.history if step >= MEASURE])
    torch.testing.assert_close(settled, settled[:1].expand_as(settled), rtol=0, atol=1e-4)


def test_permuting_the_sources_permutes_the_weights():
    target = {"copy": 0.6, "twin_a": 0.4}
    plain = run(ready(target=target), noise=0.05)
    permuted = run(ready(tuple(DOMAINS[index] for index in (2, 0, 3, 1)), target), noise=0.05)
    for name in DOMAINS:
        assert permuted[name] == pytest.approx(plain[name], abs=0.02)


def test_a_source_that_is_not_known_yet_keeps_all_at_the_prior():
    mixer = ready(target="copy")
    for step in range(2 * INTERVAL):
        signals = BatchSignals(step, torch.arange(BATCH) % 3, torch.ones(BATCH))
        signals.token_gradients = read(DOMAINS, signals.domain, step)
        mixer.step(signals)
    assert mixer.weights.tolist() == [0.25] * 4
    assert mixer.record == [] and mixer.diagnostics() == {}
    assert mixer.snapshot().schedule is None
    assert run(mixer, steps=20, first=2 * INTERVAL)["copy"] > 0.8


def test_the_snapshot_and_diagnostics_show_influences():
    mixer = ready(target="copy")
    run(mixer)
    snapshot = mixer.snapshot()
    last = snapshot.schedule.updates[-1]
    assert snapshot.schedule.sources == DOMAINS and snapshot.schedule.target == "copy"
    assert [each.step for each in snapshot.schedule.updates] == list(range(MEASURE, 41, INTERVAL))
    assert last.weights == pytest.approx(mixer.weights.tolist())
    assert last.influence[0] > 1
    assert last.influence[1] == pytest.approx(0, abs=0.1)  # noise has no part in the prior's own
    assert max(last.influence[2:]) < -0.2
    assert all(0 < error < 0.2 for error in last.error)
    assert snapshot.graph_domain.tolist() == snapshot.graph.labels.tolist() == [0, 1, 2, 3]
    assert snapshot.graph.distances[2, 3] < 0.2 * snapshot.graph.distances[0, 2]
    diagnostics = mixer.diagnostics()
    assert diagnostics["influence/copy"] == last.influence[0]
    assert diagnostics["solver_optimal"] == 1 and diagnostics["solver_failures"] == 0
    assert {"influence_error/noise", "term/influence", "term/prior"} <= set(diagnostics)


def test_the_gradients_are_freed_once_they_are_measured():
    mixer = ready(target="copy")
    run(mixer, steps=MEASURE - INTERVAL)
    assert mixer.gradients.known.all()
    run(mixer, steps=INTERVAL, first=MEASURE - INTERVAL)
    assert mixer.gradients.state_dict()["means"] is None


def test_a_failed_solve_gives_the_prior(monkeypatch):
    mixer = ready(target="copy")
    assert run(mixer)["copy"] > 0.8
    broken = lambda *_, **__: 1 / torch.zeros(0, 1)[0]  # noqa: E731
    monkeypatch.setattr("dograph.graph.schedule_solver.minimise", broken)
    assert list(run(mixer, steps=5, first=40).values()) == [0.25] * 4
    assert mixer.solver.failures == 1
    assert mixer.diagnostics()["solver_optimal"] == 0
    assert not any(name.startswith("term/") for name in mixer.diagnostics())


def test_gradients_that_are_not_finite_end_the_run():
    mixer = ready(target="copy")
    with pytest.raises(UserError, match="not finite"):
        run(mixer, noise=float("nan"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reweigh": 0.1},
        {"target": "worst"},
        {"text_tokens": 600},
        {"text_tokens": 600, "measure": 0, "target": "worst"},
    ],
)
@pytest.mark.parametrize("saved_at", [7, 10, 17, 20, 27])
def test_state_continues_exactly(options, saved_at, tmp_path):
    """Half a run, saved and loaded in the middle of measuring or after, ends as the whole one."""
    options = {"target": "copy", **options}
    whole, part, other = (ready(**options) for _ in range(3))
    for mixer in (whole, part):
        mixer.validated({"copy": 2.5, "noise": 2.0, "twin_a": 3.0, "twin_b": 1.0})
    expected = run(whole, steps=33)
    run(part, steps=saved_at)
    torch.save(part.state_dict(), tmp_path / "state")
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    if part.graph is not None:
        assert torch.equal(other.graph.kernel, part.graph.kernel)
        assert [vars(each) for each in other.snapshot().schedule.updates] == part.record
    assert run(other, steps=33 - saved_at, first=saved_at) == expected
    assert other.record == whole.record
    assert torch.equal(other.average_weights, whole.average_weights)


def test_a_resume_on_another_number_of_threads_begins_alike():
    threads, kernels = torch.get_num_threads(), []
    generator = torch.Generator().manual_seed(0)
    domains = [f"domain_{number}" for number in range(22)]
    text = [torch.randint(4000, (100, 129), generator=generator) for _ in domains]
    for count in (1, 4):
        torch.set_num_threads(count)
        try:
            mixer = DoGraphSchedule()
            mixer.setup(domains, [10**6] * 22, 32, 4000, {"domain_1": 1.0}, (), text)
        finally:
            torch.set_num_threads(threads)
        kernels.append(mixer.kernel[0])
    assert torch.equal(*kernels)


def test_a_start_that_another_processor_rounds_otherwise_is_resumed():
    options = {"text_tokens": 600, "measure": 0, "target": "copy"}
    part, other = ready(**options), ready(**options)
    run(part, steps=10)
    step, weights = other.history[0]
    other.history[0] = step, weights + torch.tensor([1e-9, -1e-9, 0, 0], dtype=weights.dtype)
    other.load_state_dict(part.state_dict())
    assert torch.equal(other.history[0][1], part.history[0][1])


def test_diagnostics_survive_a_resume():
    part, other = ready(target="copy"), ready(target="copy")
    run(part)
    other.load_state_dict(part.state_dict())
    assert other.snapshot().schedule == part.snapshot().schedule
    assert other.solver.failures == part.solver.failures


def forged(change):
    mixer = ready(target="copy")
    run(mixer)
    state = mixer.state_dict()
    change(state["_extra_state"])
    return state


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["own"]["record"][-1].pop("weights"),
        lambda state: state["own"]["record"][-1].update(more=1),
        lambda state: state["own"]["record"][-1].update(weights=[0.5, 0.5]),
        lambda state: state["own"]["record"][-1].update(error=[0.5, 0.5]),
    ],
)
def test_a_state_that_is_anothers_is_refused(change):
    with pytest.raises(UserError, match="checkpoint's state"):
        ready(target="copy").load_state_dict(forged(change))


def test_reweighing_is_published_dographs():
    mixer = ready(reweigh=0.1)
    assert mixer.acts(LOSS)
    weights = mixer.checked_loss_weights(signals_at(mixer, 0))
    assert weights.sum().item() == pytest.approx(1)
    assert weights.std() > 0
    assert not ready().acts(LOSS)
    run(mixer, steps=10)
    mixer.checked_loss_weights(signals_at(mixer, 10))
    assert mixer.diagnostics()["reweigh/solver_optimal"] == 1


def test_it_can_be_rehearsed():
    mixer = ready()
    dry_run(mixer, BATCH)
    assert mixer.record == [] and mixer.updates == 0
    assert not mixer.gradients.known.any()


def test_one_source_alone_is_drawn():
    mixer = ready(("copy", "unseen"), target="unseen", unseen=["unseen"])
    assert run(mixer) == {"copy": 1.0, "unseen": 0.0}


@pytest.mark.parametrize(
    "options",
    [
        {"interval": 0},
        {"measure": INTERVAL - 1},
        {"measure": 0},
        {"measure": 0, "text_tokens": -1},
        {"pair_rows": 100},
        {"measure": MEASURE, "skip": MEASURE - INTERVAL + 1},
        {"skip": -1},
        {"probe": 0},
        {"rank": 0},
        {"kappa": -1.0},
        {"kappa": float("inf")},
        {"laplacian": float("nan")},
        {"max_difference": -0.1},
        {"neighbours": 0},
        {"repetition": 0.0},
        {"worst_within": 0.0},
        {"floor": 1.0},
        {"target_floor": 1.0},
        {"solver": "osqp"},
        {"reweigh": -1.0},
        {"target": "nothing"},
        {"target": {"copy": 0.0}},
        {"domains": ("only",), "target": "only", "unseen": ["only"]},
        {"prior": {"copy": 1, "noise": 0, "twin_a": 1, "twin_b": 1}},
    ],
)
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError):
        ready(**options)

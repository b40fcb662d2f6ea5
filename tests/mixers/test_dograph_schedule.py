"""The schedule: what it gathers and when, known answers on made-up gradients, state."""

from dataclasses import fields

import pytest
import torch

from dograph.errors import UserError
from dograph.mixers import LOSS, BatchSignals, DoGraphSchedule, Probe, Sketch
from dograph.mixers.dry_run import dry_run
from dograph.mixers.look_ahead import FURTHEST
from dograph.mixers.schedule_settings import NodeSettings, ProbeSettings, ProblemSettings

DOMAINS = ("copy", "noise", "twin_a", "twin_b")
WIDTH = 24


def nested(options):
    """Settings by their own names, put where ``DoGraphSchedule`` takes them."""
    parts = {"nodes": NodeSettings, "probe": ProbeSettings, "problem": ProblemSettings}
    arguments = dict(options)
    for part, kind in parts.items():
        own = {field.name for field in fields(kind)} & options.keys()
        arguments[part] = kind(**{name: arguments.pop(name) for name in own})
    return arguments


def ready(domains=DOMAINS, target=None, unseen=(), **options):
    settings = {"clusters": 4, "interval": 5, "observed": 2, "window": 512, "seed": 0, **options}
    mixer = DoGraphSchedule(**nested(settings))
    mixer.setup(domains, [1] * len(domains), 64, target=target, unseen=unseen)
    return mixer


def directions():
    """A direction of gradients for each source; the twins share theirs, noise has none."""
    basis = torch.eye(WIDTH)
    return {"copy": basis[0], "noise": 0 * basis[1], "twin_a": basis[2], "twin_b": basis[2]}


def sketches(names, generator, spread=0.1):
    rows = torch.stack([directions()[name] for name in names])
    return rows + spread * torch.randn(len(names), WIDTH, generator=generator)


def run(mixer, updates, target="copy", seed=0):
    """Steps with sequences drawn evenly; the probe's gradients are those of ``target``."""
    generator = torch.Generator().manual_seed(seed)
    count = len(mixer.domains)
    movements = []
    for step in range(updates * mixer.update_every):
        domain = torch.arange(64) % count
        signals = BatchSignals(step, domain, torch.ones(64))
        if mixer.needs_at(step, Sketch):
            signals.sketch = sketches([mixer.domains[i] for i in domain.tolist()], generator)
        if mixer.needs_at(step, Probe):
            signals.probe_domain = torch.arange(4 * count) % count
            of = {name: target if target else name for name in mixer.domains}
            names = [of[mixer.domains[i]] for i in signals.probe_domain.tolist()]
            signals.probe_sketch = sketches(names, generator)
        before = mixer.weights.clone()
        if mixer.step(signals):
            movements.append(0.5 * (mixer.weights - before).abs().sum().item())
    return dict(zip(mixer.domains, mixer.weights.tolist(), strict=True)), movements


def test_signals_are_gathered_only_where_they_are_used():
    mixer = ready()
    sketched = [mixer.needs_at(step, Sketch) for step in range(10)]
    assert sketched == 2 * [False, False, False, True, True]
    probed = [mixer.needs_at(step, Probe) for step in range(10)]
    assert probed == 2 * [False, False, False, False, True]
    assert all(ready(reweigh=0.1).needs_at(step, Sketch) for step in range(5))


def test_the_useful_source_gains_noise_falls_to_the_floor_and_twins_share():
    # The target's gradient is that of `copy`. Curvature and graph spread the weights, also to what
    # teaches nothing: alignment decides where they are small, and all gain by it where not.
    settings = {"floor": 0.2, "prior_pull": 0.0, "proximity": 1.0}
    weights, _ = run(ready(**settings), updates=20)
    assert weights["copy"] > 0.6
    weights, _ = run(ready(**settings, kappa=0.1, laplacian=0.02), updates=20)
    assert weights["copy"] > 0.8
    assert weights["noise"] == pytest.approx(0.2 / 4, abs=0.02)
    assert weights["twin_a"] == pytest.approx(weights["twin_b"], abs=0.02)


def run_towards(mixer, updates=30):
    """The probe of every source has that source's own gradient; the mixer's target mixes them."""
    return run(mixer, updates, target=None)[0]


def test_curvature_counts_what_twins_have_in_common_once():
    """A target half copy, half twin: each direction is drawn as much, so a twin half as much."""
    target = {"copy": 0.5, "twin_a": 0.5, "twin_b": 0.0, "noise": 0.0}
    options = {"prior_pull": 0.0, "proximity": 1.0, "laplacian": 0.0, "floor": 0.05}
    weights = run_towards(ready(target=target, kappa=2.0, **options))
    assert weights["twin_a"] == pytest.approx(weights["twin_b"], abs=0.03)
    assert weights["twin_a"] + weights["twin_b"] == pytest.approx(weights["copy"], abs=0.12)
    without = run_towards(ready(target=target, kappa=0.0, **options))
    assert without["twin_a"] + without["twin_b"] > 1.5 * without["copy"]


@pytest.mark.parametrize("option", [{"laplacian": 60.0}, {"max_difference": 0.05}])
def test_the_graph_holds_neighbours_together(option):
    """Every cluster is joined to every other one: shares may hardly differ from the prior's."""
    options = {"prior_pull": 0.0, "proximity": 1.0, "neighbours": 3}
    free, _ = run(ready(**options, laplacian=0.0), updates=10)
    held, _ = run(ready(**{**options, "laplacian": 0.0, **option}), updates=10)
    assert free["copy"] > 0.6
    assert held["copy"] < 0.35


def test_entropic_steps_find_the_useful_source_too():
    weights, _ = run(ready(geometry="entropic", prior_pull=0.0, proximity=1.0), updates=10)
    assert weights["copy"] > 0.6


def test_weights_settle_on_a_stationary_problem():
    _, movements = run(ready(proximity=2.0), updates=40)
    assert max(movements[-10:]) < 0.02
    assert max(movements[:3]) > 3 * max(movements[-10:])


def test_permuting_the_sources_permutes_the_weights():
    order = (2, 0, 3, 1)
    domains = tuple(DOMAINS[index] for index in order)
    # Three clusters: K-means has one right answer, whatever it starts from.
    plain, _ = run(ready(clusters=3), updates=6)
    permuted, _ = run(ready(domains=domains, clusters=3), updates=6)
    for name in DOMAINS:
        assert permuted[name] == pytest.approx(plain[name], abs=0.03)


def test_one_unseen_source_as_target_is_never_drawn():
    domains = ("copy", "noise", "unseen")
    mixer = ready(domains=domains, target="unseen", unseen=["unseen"], prior_pull=0.0)
    assert mixer.weights.tolist() == [0.5, 0.5, 0.0]
    generator = torch.Generator().manual_seed(0)
    for step in range(50):
        domain = torch.arange(64) % 2
        signals = BatchSignals(step, domain, torch.ones(64))
        signals.sketch = sketches([domains[i] for i in domain.tolist()], generator)
        signals.probe_domain = torch.arange(12) % 3
        # The other sources' probes point elsewhere and must not count.
        names = [("twin_a", "twin_a", "copy")[i] for i in signals.probe_domain.tolist()]
        signals.probe_sketch = sketches(names, generator)
        mixer.step(signals)
    assert mixer.weights[2] == 0
    assert mixer.weights[0] > 0.7


def test_clusters_keep_their_numbers_and_the_graph_shows_them():
    mixer = ready()
    run(mixer, updates=8)
    assert [update["numbers"] for update in mixer.record][3:] == [mixer.record[-1]["numbers"]] * 5
    assert mixer.graph.numbers == tuple(mixer.record[-1]["numbers"])
    assert len(mixer.graph.labels) == len(mixer.graph_domain)
    table = torch.tensor(mixer.record[-1]["contingency"])
    assert table.sum(dim=0).tolist() == pytest.approx([1] * 4)
    diagnostics = mixer.diagnostics()
    assert 0 < diagnostics["mutual_information"] <= torch.log(torch.tensor(4.0))
    assert diagnostics["solver_optimal"] == 1
    assert {"term/alignment", "term/curvature", "scalar/kappa"} <= set(diagnostics)


def test_a_failed_solve_leaves_the_weights(monkeypatch):
    mixer = ready()
    before, _ = run(mixer, updates=2)
    assert before["copy"] > 0.3
    monkeypatch.setattr(
        "dograph.graph.schedule_solver.minimise", lambda *_, **__: 1 / torch.zeros(0, 1)[0]
    )
    after, _ = run(mixer, updates=1)
    assert after == before
    assert mixer.solver.failures == 1
    assert mixer.diagnostics()["solver_optimal"] == 0
    assert not any(name.startswith("term/") for name in mixer.diagnostics())


def test_gradients_that_are_not_finite_change_nothing():
    mixer = ready()
    domain = torch.arange(64) % 4
    bad = torch.full((64, WIDTH), torch.nan)
    for step in range(5):
        mixer.step(
            BatchSignals(step, domain, torch.ones(64), bad, None, None, None, bad[:4], domain[:4])
        )
    assert mixer.weights.tolist() == [0.25] * 4
    assert mixer.record == []


def test_scalars_are_learnt_only_if_asked_and_within_bounds():
    still, learning = ready(), ready(adapt=True)
    run(still, updates=6)
    run(learning, updates=6)
    assert still.look_ahead.values() == {"kappa": 0.5, "laplacian": 0.1, "proximity": 4.0}
    moved = learning.look_ahead.moved
    assert any(moved.values()) and all(abs(value) <= FURTHEST for value in moved.values())
    # The target stays the same, so that larger steps are better: less proximity.
    assert learning.look_ahead.values()["proximity"] < 4.0


def test_a_scalar_of_zero_is_not_learnt():
    mixer = ready(kappa=0.0, laplacian=0.0, adapt=True)
    run(mixer, updates=4)
    assert mixer.look_ahead.moved["kappa"] == mixer.look_ahead.moved["laplacian"] == 0
    assert mixer.look_ahead.moved["proximity"] != 0


def test_the_graph_and_its_sequences_stay_together_between_updates():
    mixer = ready()
    run(mixer, updates=2)
    for step in range(10, 14):  # sketched, but no update yet
        mixer.step(BatchSignals(step, torch.arange(64) % 4, torch.ones(64), torch.randn(64, WIDTH)))
    assert len(mixer.graph.labels) == len(mixer.graph_domain) < len(mixer.recent)


@pytest.mark.parametrize("options", [{}, {"adapt": True}, {"reweigh": 0.1}])
def test_state_continues_exactly(options):
    """Half a run, saved and loaded, ends as the whole one."""
    whole = ready(**options)
    expected, _ = run(whole, updates=6)
    part, other = ready(**options), ready(**options)
    generator = torch.Generator().manual_seed(0)
    for step in range(30):
        if step == 17:
            other.load_state_dict(part.state_dict())
            assert other.diagnostics() == part.diagnostics() != {}
            assert torch.equal(other.graph.labels, part.graph.labels)
            part = other
        domain = torch.arange(64) % 4
        signals = BatchSignals(step, domain, torch.ones(64))
        if part.needs_at(step, Sketch):
            signals.sketch = sketches([DOMAINS[i] for i in domain.tolist()], generator)
        if part.needs_at(step, Probe):
            signals.probe_domain = torch.arange(16) % 4
            signals.probe_sketch = sketches(["copy"] * 16, generator)
        part.step(signals)
    assert part.weights.tolist() == list(expected.values())
    for mine, others in zip(part.record, whole.record, strict=True):
        for each in (mine, others):
            del each["diagnostics"]["solver_milliseconds"]
        assert mine == others


def test_reweighing_is_published_dographs():
    mixer = ready(reweigh=0.1)
    assert mixer.acts(LOSS)
    generator = torch.Generator().manual_seed(0)
    domain = torch.arange(64) % 4
    sketch = sketches([DOMAINS[i] for i in domain.tolist()], generator)
    weights = mixer.checked_loss_weights(BatchSignals(0, domain, torch.ones(64), sketch))
    assert weights.sum().item() == pytest.approx(1)
    assert weights.std() > 0
    assert not ready().acts(LOSS)


def test_it_can_be_rehearsed():
    mixer = ready()
    dry_run(mixer, 64)
    assert mixer.record == [] and mixer.updates == 0


@pytest.mark.parametrize(
    "options",
    [
        {"observed": 6},
        {"interval": 0},
        {"kappa": float("inf")},
        {"geometry": "euclid"},
        {"domains": ("only",), "target": "only", "unseen": ["only"]},
        {"proximity": 0.0},
        {"memory": 1.0},
        {"clusters": 600},
        {"floor": 1.0},
        {"target": "nothing"},
        {"target": {"copy": 0.0}},
        {"prior": {"copy": 1, "noise": 0, "twin_a": 1, "twin_b": 1}},
    ],
)
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError):
        ready(**options)

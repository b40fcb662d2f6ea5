"""DoGE's update against hand-computed cases and its identities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dograph.errors import UserError
from dograph.mixers import LOSS, BatchSignals, DoGE, DoGEOnline
from dograph.mixers.doge import alignment_scores, clipping, mirror_descent, sketched_kernel

DOMAINS = ("books", "code", "web")


def ready(mixer=None, domains=DOMAINS, target=None, unseen=()):
    """Set up; by default the sum of the batch's own gradients is the target's."""
    mixer = mixer if mixer is not None else DoGE(universal="all")
    mixer.setup(domains, [1] * len(domains), 4, target=target, unseen=unseen)
    return mixer


def kernel_of(*gradients):
    rows = torch.tensor(gradients, dtype=torch.float64)
    return rows @ rows.T


def signals(kernel, domain=(0, 1, 2), learning_rate=0.01, products=None, **more):
    domain = torch.tensor(domain)
    if products is not None:
        more["probe_products"] = torch.tensor(products, dtype=torch.float32)
    return BatchSignals(
        0,
        domain,
        torch.ones(len(domain)),
        domain_kernel=kernel.float(),
        learning_rate=learning_rate,
        peak_learning_rate=learning_rate,
        **more,
    )


def test_two_domains_by_hand():
    # G = (3, 0), (0, 1): Σ_j ⟨G_s, G_j⟩ = 9, 1; mean norm 2; scores lr · (4.5, 0.5).
    kernel = kernel_of((3, 0), (0, 1))
    alignment, norms = kernel.sum(dim=1), kernel.diagonal().sqrt()
    scores = alignment_scores(alignment, norms, torch.tensor([True, True]), 0.01)
    assert scores.tolist() == pytest.approx([0.045, 0.005], rel=1e-5)
    found = mirror_descent(torch.tensor([0.5, 0.5]).double(), scores, mu=0.01, smoothing=0.0)
    share = math.exp(4.5) / (math.exp(4.5) + math.exp(0.5))
    assert found.tolist() == pytest.approx([share, 1 - share], rel=1e-5)


def test_scores_are_clipped_on_both_sides():
    # Books point against the sum of the others; web is far above the mean norm times five.
    kernel = kernel_of((-1, 0), (1, 1), (30, 0))
    alignment, norms = kernel.sum(dim=1), kernel.diagonal().sqrt()
    scores = alignment_scores(alignment, norms, torch.ones(3).bool(), 0.01)
    assert scores[0] == 0
    assert scores[2] == pytest.approx(5 * 0.01)


def test_a_step_moves_a_logit_by_at_most_five_learning_rates_over_mu():
    mixer = ready(DoGE(universal="all", mu=0.01))
    mixer.step(signals(kernel_of((1e3, 0), (0, 1), (0, 1)), learning_rate=5e-4))
    logits = mixer.weights.log()
    assert (logits[0] - logits[1]).item() <= 5 * 5e-4 / 0.01 + 1e-6


def test_clipping_scales_gradients_to_the_largest_norm():
    squared_norms = kernel_of((3, 4), (0, 1)).diagonal()
    assert clipping(squared_norms, 1.0).tolist() == pytest.approx([0.2, 1.0])
    assert clipping(squared_norms, 10.0).tolist() == [1.0, 1.0]


def test_the_models_own_step_is_the_clipped_gradients_by_the_new_weights():
    gradients = torch.tensor([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0]])
    mixer = ready(DoGE(universal="all", clip=1.0, mu=0.05))
    batch = signals(gradients @ gradients.T, domain=(0, 0, 1, 2), learning_rate=0.01)
    weights = mixer.checked_loss_weights(batch)
    mixer.step(batch)
    expected = mixer.weights * torch.tensor([0.2, 1.0, 1.0])
    books, code, web = expected.tolist()
    assert weights.tolist() == pytest.approx([books / 2, books / 2, code, web])
    # Σ_i a_i g_i with each sequence's gradient its domain's: Σ_s α_s clip(G_s).
    direction = (weights[:, None] * gradients[batch.domain]).sum(dim=0)
    assert torch.allclose(direction, (expected.float() @ gradients))


def test_settings_are_the_published_ones_at_any_learning_rate():
    universal, unseen = ready(DoGE()), ready(DoGE(), target="web", unseen=["web"])
    assert universal.settings(5e-4) == pytest.approx((0.01, 5))
    assert universal.settings(2e-3) == pytest.approx((0.04, 5))
    assert unseen.settings(5e-4) == pytest.approx((0.05, 1))
    assert ready(DoGE(mu=0.3, clip=2.0)).settings(5e-4) == (0.3, 2)
    # Warm-up: a step of half the peak's rate moves half as far.
    steps = []
    for rate in (0.01, 0.02):
        mixer = ready(DoGE(universal="all"))
        batch = signals(kernel_of((1, 0), (0, 1), (0, 1)), learning_rate=rate)
        batch.peak_learning_rate = 0.02
        mixer.step(batch)
        steps.append((mixer.weights[1] / mixer.weights[0]).log())
    assert steps[0] == pytest.approx(steps[1] / 2)


def test_an_absent_domain_scores_nothing_and_gets_no_gradient():
    mixer = ready(DoGE(universal="all", mu=0.01))
    kernel = kernel_of((1, 0), (1, 0), (0, 0))
    batch = signals(kernel, domain=(0, 1))
    weighed = mixer.checked_loss_weights(batch)
    mixer.step(batch)
    assert weighed.tolist() == pytest.approx(mixer.weights[:2].tolist())
    assert mixer.weights[0] == pytest.approx(mixer.weights[1].item())
    assert mixer.weights[2] < mixer.weights[0]


def test_a_held_out_mix_by_hand():
    # G = (3, 4), (0, 1) and the mix (0, 10), whose norm is clipped to 5: (0, 5). Mean norm 3;
    # ⟨G_s, mix⟩ = 20, 5; scores lr · (20/3, 5/3), the first clipped to 5 lr.
    mixer = ready(DoGE(mu=0.01), domains=("books", "code"))
    batch = signals(kernel_of((3, 4), (0, 1)), (0, 1), 0.002, products=[40, 10, 100])
    weights = mixer.checked_loss_weights(batch)
    mixer.step(batch)
    share = 1 / (1 + math.exp(0.2 * (5 / 3 - 5)))
    assert mixer.weights.tolist() == pytest.approx([share, 1 - share], rel=1e-5)
    assert weights.tolist() == pytest.approx([share, 1 - share], rel=1e-5)
    assert mixer.diagnostics() == pytest.approx({"score/books": 5, "score/code": 5 / 3}, rel=1e-5)


def test_the_sum_is_as_many_times_the_mix_as_there_are_domains():
    """Where the held-out gradients are the batch's own, scores differ by that factor alone."""
    gradients = torch.tensor([[0.5, 0.1], [0.3, 0.2], [0.1, 0.4]], dtype=torch.float64)
    mix = gradients.mean(dim=0)
    products = [*(gradients @ mix).tolist(), float(mix @ mix)]
    mixed, summed = ready(DoGE()), ready(DoGE(universal="all"))
    for mixer in (mixed, summed):
        mixer.step(signals(gradients @ gradients.T, products=products))
    thrice = [3 * score for score in mixed.diagnostics().values()]
    assert thrice == pytest.approx(list(summed.diagnostics().values()), rel=1e-5)


@pytest.mark.parametrize("build", [DoGE, DoGEOnline])
@pytest.mark.parametrize("gradients", ["exact", "sketch"])
def test_an_out_of_domain_target_scores_and_is_never_trained_on(build, gradients):
    # G = (0, 1), (1, 0) and the target's (2, 0): mean norm 1, scores lr · (0, 2).
    mixer = ready(build(gradients, mu=0.05, clip=5.0), target="web", unseen=["web"])
    assert mixer.weights.tolist() == mixer.sampling_weights.tolist() == [0.5, 0.5, 0.0]
    assert [mixer.probes(name) for name in DOMAINS] == [False, False, True]
    batch = signals(kernel_of((0, 1), (1, 0), (0, 0)), (0, 1), products=[0, 2, 0, 4])
    if gradients == "sketch":
        batch.domain_kernel = batch.probe_products = None
        batch.sketch = torch.tensor([[0.0, 1], [1, 0]])
        batch.probe_sketch = torch.tensor([[1.0, 0], [3, 0]])
    weights = mixer.checked_loss_weights(batch)
    mixer.step(batch)
    share = 1 / (1 + math.exp(-0.01 * 2 / 0.05))
    expected = [1 - share, share, 0]
    if build is DoGEOnline:
        expected = [0.1 + 0.8 * value for value in expected[:2]] + [0]
    assert mixer.weights.tolist() == pytest.approx(expected, rel=1e-5)
    assert mixer.average_weights.tolist() == pytest.approx(expected, rel=1e-5)
    assert weights.tolist() == pytest.approx([0.5, 0.5] if build is DoGEOnline else expected[:2])
    drawn = expected if build is DoGEOnline else [0.5, 0.5, 0]
    assert mixer.sampling_weights.tolist() == pytest.approx(drawn, rel=1e-5)


@pytest.mark.parametrize(
    ("universal", "target", "unseen", "probed"),
    [
        ("mix", None, [], "books code web"),
        ("mix", None, ["web"], "books code"),
        ("mix", {"books": 3, "web": 1, "code": 0}, [], "books web"),
        ("mix", "worst", [], ""),
        ("all", None, [], ""),
        ("all", {"books": 3, "web": 1}, [], ""),
        ("all", {"books": 3, "web": 1}, ["web"], "books web"),
        ("all", None, ["web"], ""),
    ],
)
def test_what_is_held_out(universal, target, unseen, probed):
    mixer = ready(DoGE(universal=universal), target=target, unseen=unseen)
    assert [name for name in DOMAINS if mixer.probes(name)] == probed.split()


def test_a_target_mixture_interpolates_between_universal_and_one_domain():
    kernel = kernel_of((1, 0), (0, 1), (1, 1))
    uniform = ready(target=dict.fromkeys(DOMAINS, 1))
    universal = ready()
    uniform.step(signals(kernel))
    universal.step(signals(kernel))
    assert torch.equal(uniform.weights, universal.weights)
    books = ready(target="books")
    books.step(signals(kernel))
    assert books.weights[0] == pytest.approx(books.weights[2].item())
    assert books.weights[1] < books.weights[0]


def test_an_unseen_domain_outside_the_target_is_not_even_drawn():
    mixer = ready(target="code", unseen=["web"])
    assert mixer.weights.tolist() == mixer.sampling_weights.tolist() == [0.5, 0.5, 0]


def test_the_worst_domain_of_the_batch_is_the_target():
    worst = ready(target="worst")
    batch = signals(kernel_of((1, 0), (0, 1), (0, 1)))
    batch.sequence_loss = torch.tensor([1.0, 3.0, 2.0])
    worst.step(batch)
    code = ready(target="code")
    code.step(batch)
    assert torch.equal(worst.weights, code.weights)
    assert worst.weights[1] > worst.weights[0]


def test_sketches_and_exact_kernels_give_the_same_update_where_they_agree():
    gradients = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    domain = torch.tensor([0, 0, 1, 2])
    means = torch.stack([gradients[:2].mean(dim=0), gradients[2], gradients[3]])
    assert torch.allclose(sketched_kernel(gradients, domain, 3), means @ means.T, atol=1e-6)
    exact, sketch = (ready(DoGE(name, universal="all")) for name in ("exact", "sketch"))
    exact.step(signals(means @ means.T, domain.tolist()))
    sketch.step(
        BatchSignals(
            0, domain, torch.ones(4), sketch=gradients, learning_rate=0.01, peak_learning_rate=0.01
        )
    )
    assert torch.allclose(exact.weights, sketch.weights, atol=1e-6)


def test_micro_batches_count_by_the_last_steps_weights_and_clipping():
    mixer = ready(DoGE(universal="all", clip=1.0))
    mixer.step(signals(kernel_of((3, 4), (0, 1), (1, 0))))
    domain = torch.tensor([0, 1, 2, 2])
    parts = [
        mixer.checked_loss_weights(BatchSignals(1, part, torch.ones(2), step_domain=domain)) / 2
        for part in domain.view(2, 2)
    ]
    factors = mixer.weights * torch.tensor([0.2, 1.0, 1.0])
    expected = [factors[0], factors[1], factors[2] / 2, factors[2] / 2]
    assert torch.cat(parts).tolist() == pytest.approx([float(value) for value in expected])


@st.composite
def problems(draw):
    size = draw(st.integers(2, 5))
    rows = draw(
        st.lists(st.lists(st.floats(-2, 2), min_size=3, max_size=3), min_size=size, max_size=size)
    )
    raw = draw(st.lists(st.floats(0.05, 1), min_size=size, max_size=size))
    weights = torch.tensor(raw, dtype=torch.float64)
    return torch.tensor(rows, dtype=torch.float64), weights / weights.sum()


@given(problems(), st.floats(1e-4, 1e-1), st.floats(1e-3, 1), st.floats(0, 0.5), st.data())
@settings(max_examples=80, deadline=None)
def test_identities(problem, learning_rate, mu, smoothing, data):
    gradients, weights = problem
    size = len(weights)
    sources, target = torch.ones(size).bool(), gradients.sum(dim=0)
    norms = gradients.norm(dim=1)
    scores = alignment_scores(gradients @ target, norms, sources, learning_rate)
    assert scores.min() >= 0 and scores.max() <= 5 * learning_rate + 1e-12
    found = mirror_descent(weights, scores, mu, smoothing)
    assert found.sum().item() == pytest.approx(1)
    assert found.min() >= smoothing / size - 1e-12
    order = torch.tensor(data.draw(st.permutations(range(size))))
    aligned = gradients[order] @ target
    permuted = alignment_scores(aligned, norms[order], sources, learning_rate)
    assert torch.allclose(permuted, scores[order], atol=1e-9)
    assert torch.allclose(mirror_descent(weights[order], permuted, mu, smoothing), found[order])
    # All else equal, the better aligned domain never ends with the smaller weight.
    even = mirror_descent(torch.full((size,), 1 / size).double(), scores, mu, smoothing)
    assert (even[scores.argsort()].diff() >= -1e-12).all()


def test_online_weights_go_live_and_losses_count_alike():
    mixer = ready(DoGEOnline("exact", floor=0.3))
    batch = signals(kernel_of((1, 0), (1, 0), (0, 0.1)))
    assert not mixer.acts(LOSS)
    assert mixer.checked_loss_weights(batch).tolist() == pytest.approx([1 / 3] * 3)
    mixer.step(batch)
    assert mixer.weights[0] > mixer.weights[2] >= 0.1
    assert torch.equal(mixer.sampling_weights, mixer.weights)


@pytest.mark.parametrize(
    "build",
    [
        lambda: DoGE(mu=0.0),
        lambda: DoGE(clip=-1.0),
        lambda: DoGE(smoothing=2.0),
        lambda: DoGEOnline(floor=1.0),
        lambda: DoGE(probe=0),
        lambda: ready(target="wbe"),
        lambda: ready(unseen=["wbe"]),
        lambda: ready(DoGE(prior={"web": 1, "books": 0, "code": 0}), unseen=["web"]),
    ],
)
def test_settings_that_make_no_sense_are_refused(build):
    with pytest.raises(UserError):
        build()

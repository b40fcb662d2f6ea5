"""Figures of ordinary and ugly inputs."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import Wedge

from dograph.files.records import from_dict
from dograph.graph.clusters import cluster_sequences
from dograph.graph.domain_graph import DomainGraph
from dograph.graph.kernel import kernel_distances
from dograph.graph.schedule_solver import ScheduleProblem, ScheduleSolver
from dograph.mixers.snapshot import MixerSnapshot, ScheduleSnapshot, ScheduleUpdate
from dograph.reports.figures.appearance import percent, plain, style_of
from dograph.reports.figures.domain_graph import domain_graph_figure, nearest_pairs
from dograph.reports.figures.gradient_directions import (
    GradientDirections,
    early_late_figure,
    gradient_directions,
    gradient_directions_figure,
)
from dograph.reports.figures.layout import boxes_apart, spaced, squared_distance_plane
from dograph.reports.figures.schedule import LEAST_PUSH, _draw_pushes, pushes, schedule_figure
from dograph.reports.figures.trajectories import smoothed, weight_trajectories_figure
from dograph.reports.observation import Observed, observed_graph

NAMES = ["python", "docs", "headers"]
ODD = [
    "$x_1$",
    "<script>alert(1)</script>",
    "_hidden",
    "a very long name that does not seem to want to end " * 3,
    "$5",
    "\\alpha$",
    "two\nlines",
    "[bold]",
    "",
    *(f"domain {index}" for index in range(8)),
]


def render(figure):
    """The figure's pixels; any warning of matplotlib's is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    assert pixels.std() > 1
    return pixels


def texts_of(figure):
    """Everything written in a figure."""
    return [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_text()]


def sequences(n=64, domains=3, seed=0):
    """Sketches around a centre for each domain, and their domains."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(domains, 24, generator=draw)
    domain = torch.arange(n) % domains
    return centres[domain] + 0.5 * torch.randn(n, 24, generator=draw), domain


def graph_of(sketches, clusters=5):
    """The graph of equally weighted sequences."""
    weights = torch.full((len(sketches),), 1 / len(sketches), dtype=torch.float64)
    domain = torch.zeros(len(sketches), dtype=torch.long)
    return observed_graph(Observed(sketches, domain, weights), clusters, seed=0)


def test_domain_graph_has_a_label_for_each_node_and_a_slice_for_each_domain_in_it():
    sketches, domain = sequences()
    graph = graph_of(sketches)
    figure = domain_graph_figure(graph, domain, NAMES)
    render(figure)
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.texts]
    shares = [f"{percent(w)} · n {n}" for w, n in zip(graph.weights, graph.counts, strict=True)]
    assert labels == [f"{node + 1}\n{share}" for node, share in enumerate(shares)]
    pairs = {(int(c), int(d)) for c, d in zip(graph.labels, domain, strict=True)}
    assert sum(isinstance(patch, Wedge) for patch in axes.patches) == len(pairs)
    assert any(text.startswith("MMD") for text in texts_of(figure))
    assert len(axes.collections[0].get_segments()) == len(nearest_pairs(graph.distances.numpy()))


def test_domain_graph_area_is_the_weight():
    sketches, domain = sequences(domains=1)
    graph = graph_of(sketches, clusters=3)
    graph.weights = torch.tensor([0.64, 0.32, 0.04], dtype=torch.float64)
    patches = domain_graph_figure(graph, domain, ["one"]).axes[0].patches
    radii = [patch.r for patch in patches if isinstance(patch, Wedge)]
    np.testing.assert_allclose(np.square(radii) / radii[0] ** 2, [1, 0.5, 0.0625], rtol=1e-9)


@pytest.mark.parametrize("clusters", [1, 2, 3, 40])
def test_domain_graph_of_any_size_renders(clusters):
    sketches, _ = sequences()
    render(domain_graph_figure(graph_of(sketches, clusters), None, NAMES))


def test_domain_graph_of_identical_nodes_says_so_and_keeps_them_apart():
    m, n = 11, 33
    graph = DomainGraph(
        kernel=torch.ones(m, m, dtype=torch.float64),
        distances=torch.full((m, m), 1e-17, dtype=torch.float64),
        spread=torch.zeros(m),
        counts=torch.full((m,), 3),
        labels=torch.arange(n) % m,
        weights=torch.tensor([1.0] + [0.0] * 10, dtype=torch.float64),
    )
    figure = domain_graph_figure(graph, torch.zeros(n, dtype=torch.long), NAMES)
    render(figure)
    assert any("every MMD is 0" in text for text in texts_of(figure))
    places = np.array([text.get_position() for text in figure.axes[0].texts])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(m)
    assert apart.min() > 0.1


def test_odd_names_survive_in_every_figure():
    sketches, domain = sequences(n=128, domains=len(ODD))
    labels = cluster_sequences(sketches, 16, seed=0)
    signals = gradient_directions(sketches, domain, labels, 7)
    shares = np.full((30, len(ODD)), 1 / len(ODD)) + 1e-3 * np.arange(30)[:, None] % 7
    figures = [
        domain_graph_figure(graph_of(sketches, 16), domain, ODD, "costs $5 or $6"),
        gradient_directions_figure(signals, ODD),
        early_late_figure(signals, signals, ODD),
        weight_trajectories_figure(range(30), shares, shares, shares, ODD),
    ]
    for figure in figures:
        render(figure)
        written = "\n".join(texts_of(figure))
        # Rendering turns the escaped `\$` back into what is shown.
        for shown in ("x_1", "<script", "_hidden", "domain 7", "[bold]", "(no name)", "two lines"):
            assert shown in written


def test_names_are_plain_text():
    assert plain("$x_1$") == r"\$x_1\$"
    assert plain("_a") == " _a"
    assert plain("a\n b") == "a b"
    assert len(plain("x" * 300)) == 26


def test_the_first_64_domains_look_different():
    styles = [style_of(index) for index in range(64)]
    assert len({(style.colour, style.marker) for style in styles}) == 64
    assert len({(style.colour, style.line) for style in styles[:32]}) == 32


def test_percentages_are_short():
    assert [percent(x) for x in (0, 1, 0.415, 0.0995, 0.041, 0.0041, 1e-5)] == [
        "0 %",
        "100 %",
        "42 %",
        "10 %",
        "4.1 %",
        "0.41 %",
        "0.001 %",
    ]


def test_gradient_directions_are_pca_of_unit_vectors():
    sketches, domain = sequences()
    signals = gradient_directions(sketches, domain, domain, 5)
    unit = torch.nn.functional.normalize(sketches.double(), dim=1)
    variance = torch.linalg.eigvalsh(torch.cov(unit.T)).flip(0)
    np.testing.assert_allclose(np.var(signals.points, axis=0, ddof=1), variance[:2], rtol=1e-9)
    np.testing.assert_allclose(signals.explained, variance[:2] / variance.sum(), rtol=1e-9)
    scaled = gradient_directions(sketches * torch.rand(64, 1) * 100, domain, domain, 5)
    np.testing.assert_allclose(scaled.points, signals.points, atol=1e-6)
    assert signals.mutual_information == pytest.approx(np.log(3), abs=1e-2)
    assert from_dict(GradientDirections, vars(signals)) == signals


def test_early_and_late_share_a_scale_and_say_the_information():
    sketches, domain = sequences()
    early = gradient_directions(torch.randn(64, 24), domain, torch.arange(64) % 5, 8)
    late = gradient_directions(sketches, domain, domain, 400)
    figure = early_late_figure(early, late, NAMES)
    render(figure)
    assert len(figure.axes) == 4
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "early, step 8" in titles[0] and "late, step 400" in titles[3]
    assert f"{late.mutual_information:.2f} nats" in figure.axes[3].get_title(loc="right")
    assert [len(axes.collections) for axes in figure.axes] == [3, 5, 3, 3]
    assert len(figure.legends[0].get_texts()) == 3


@pytest.mark.parametrize("sketches", [torch.ones(6, 4), torch.zeros(6, 4), torch.randn(6, 1)])
def test_directions_without_directions_render(sketches):
    domain = torch.arange(6) % 3
    signals = gradient_directions(sketches, domain, torch.zeros(6, dtype=torch.long), 1)
    assert np.isfinite(signals.points).all()
    render(gradient_directions_figure(signals, NAMES))


def test_trajectories_have_one_colour_a_domain_and_a_label_at_each_end():
    shares = np.array([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.4, 0.3, 0.3]])
    figure = weight_trajectories_figure([10, 20, 30], shares, shares, shares, NAMES)
    render(figure)
    for axes in figure.axes:
        lines = [line for line in axes.lines if len(line.get_xdata()) == 3 and line.axes is axes]
        colours = [line.get_color() for line in lines[:3]]
        assert colours == [style_of(index).colour for index in range(3)]
        np.testing.assert_array_equal(lines[0].get_ydata(), [0.6, 0.5, 0.4])
    ends = [text.get_text() for text in figure.axes[-1].texts]
    assert [
        f"{name}  {end}" for name, end in zip(NAMES, ["40 %", "30 %", "30 %"], strict=True)
    ] == (ends[1:])


def test_a_proxys_trajectories_are_what_it_finds():
    shares = np.full((3, 3), 1 / 3)
    titles = [
        weight_trajectories_figure([1, 2, 3], shares, shares, shares, NAMES, live).axes[0]
        for live in (True, False)
    ]
    assert [axes.get_title(loc="left") for axes in titles] == ["Sampling weights", "Domain weights"]


@pytest.mark.parametrize("points", [0, 1, 2, 50])
def test_trajectories_of_any_length_render(points):
    shares = np.random.default_rng(0).dirichlet(np.ones(3), size=points)
    render(weight_trajectories_figure(range(points), shares, shares, shares, NAMES))


def test_smoothing_keeps_the_simplex():
    values = np.random.default_rng(0).dirichlet(np.ones(4), size=30)
    np.testing.assert_allclose(smoothed(values, 5).sum(axis=1), 1)
    np.testing.assert_allclose(smoothed(values, 5)[10], values[8:13].mean(axis=0))


def test_scaling_recovers_points_of_a_plane():
    points = np.random.default_rng(0).normal(size=(9, 2))
    squared = np.square(points[:, None] - points[None]).sum(axis=2)
    found, kept = squared_distance_plane(squared)
    np.testing.assert_allclose(np.square(found[:, None] - found[None]).sum(axis=2), squared)
    assert kept == pytest.approx(1)


def test_boxes_that_do_not_touch_stay():
    centres = np.array([[-0.5, 0.0], [0.5, 0.0]])
    moved = boxes_apart(centres, np.full((2, 2), 0.1), np.ones(2))
    np.testing.assert_allclose(moved, centres, atol=2e-3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_spaced_labels_keep_distance_order_and_middle(heights):
    heights = np.array(heights)
    placed = spaced(heights, 0.1)
    assert (np.diff(np.sort(placed)) >= 0.1 - 1e-9).all()
    assert (np.diff(placed[np.argsort(heights, kind="stable")]) > 0).all()
    assert placed.mean() == pytest.approx(heights.mean())


def schedule(count, sources=NAMES, moves=True, target="stubs"):
    """A mixer's snapshot after ``count`` updates, solved for influences of random gradients."""
    draw, m = torch.Generator().manual_seed(0), len(sources)
    means = torch.randn(m, 12, dtype=torch.float64, generator=draw)
    kernel, prior = means @ means.T / 12, torch.full((m,), 1 / m, dtype=torch.float64)
    influence = kernel[0] * torch.linspace(1, 0.1 if moves else 1, count)[:, None]
    solver, updates = ScheduleSolver(), []
    for index, row in enumerate(influence):
        problem = ScheduleProblem(row, means.T / 12**0.5, torch.zeros(1, m), prior)
        weights = solver(problem, kappa=0.5, nu=0.1).weights
        errors = [0.1] * m
        parts = (weights.tolist(), row.tolist(), errors, dict(solver.terms))
        updates.append(ScheduleUpdate(100 + 20 * index, *parts))
    domains = torch.arange(m)
    graph = DomainGraph(
        kernel=kernel,
        distances=kernel_distances(kernel),
        spread=torch.zeros(m),
        counts=torch.ones(m, dtype=torch.long),
        labels=domains,
        weights=weights,
    )
    record = ScheduleSnapshot(tuple(sources), target, updates)
    return MixerSnapshot(graph, domains + 1, schedule=record)


@pytest.mark.parametrize("sources", [["one"], NAMES, ODD, [f"s{i}" for i in range(40)]])
@pytest.mark.parametrize("count", [1, 30])
def test_schedules_of_any_size_render(count, sources):
    render(schedule_figure(schedule(count, sources), 900))


def test_a_schedule_shows_influence_weight_and_pushes_of_every_source():
    mixer = schedule(30, moves=False)
    last = mixer.schedule.updates[-1]
    figure = schedule_figure(mixer, 900, "the sentence")
    render(figure)
    influence, drawn, why = figure.axes
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Influence on stubs", "Drawn", "Why"]
    assert "the sentence" in texts_of(figure)
    order = np.argsort(last.influence)
    assert [t.get_text() for t in influence.get_yticklabels()] == [NAMES[i] for i in order]
    bars = [patch.get_width() for patch in drawn.patches]
    np.testing.assert_allclose(bars, np.array(last.weights)[order])
    legend = [text.get_text() for text in why.get_legend().get_texts()]
    assert legend == ["influence", "curvature", "prior"]
    # The domains' own colours: here the first source is the corpus's second domain.
    colours = [line.get_color() for line in influence.lines if len(line.get_xdata()) == 1]
    assert set(colours) == {style_of(index).colour for index in (1, 2, 3)}


def test_a_schedule_that_moves_is_drawn_over_time_from_the_prior_on():
    figure = schedule_figure(schedule(30), 900)
    render(figure)
    assert len(figure.axes) == 5
    drawn = figure.axes[-1]
    assert drawn.get_title(loc="left") == "Drawn over time" and drawn.get_xlim() == (0, 900)
    first = drawn.collections[0].get_paths()[0].vertices
    assert first[:, 1].max() == pytest.approx(max(1 / 3, first[first[:, 0] > 100, 1].max()))


def test_pushes_are_the_terms_gradients():
    mixer = schedule(1)
    last, kernel = mixer.schedule.updates[-1], mixer.graph.kernel.numpy()
    weights, prior = np.array(last.weights), np.full(3, 1 / 3)
    found = pushes(last, prior, 7 * kernel)  # its size does not matter
    np.testing.assert_allclose(found["influence"], last.influence)
    np.testing.assert_allclose(found["curvature"], -0.5 * kernel @ (weights - prior), atol=1e-6)
    np.testing.assert_allclose(found["prior"], -0.1 * (weights - prior) / prior, atol=1e-6)
    above = weights > 0.1 * prior + 1e-6
    sums = sum(found.values())
    assert np.ptp(sums[above]) < 1e-5 and (sums[~above] <= sums[above].max() + 1e-6).all()


def test_rounding_is_not_drawn_as_a_push():
    """Where the prior is kept, pushes of 1e-35 once filled the panel, some left of the line."""
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    _draw_pushes(axes, {"influence": np.array([1e-35, -2e-35])}, np.arange(2))
    assert axes.get_xlim() == (-LEAST_PUSH, LEAST_PUSH)
    axes = Figure().subplots()
    _draw_pushes(axes, {"influence": np.array([0.3, -0.1])}, np.arange(2))
    assert axes.get_xlim()[1] < 1


def test_a_failed_update_pushes_by_its_influence_alone():
    update = ScheduleUpdate(100, [0.5, 0.5], [1.0, 0.2], [0.1, 0.1], {})
    found = pushes(update, np.full(2, 0.5), np.eye(2))
    assert not found["curvature"].any() and not found["prior"].any()


def test_a_graph_of_domains_shows_their_names_and_no_clusters():
    mixer = schedule(1)
    names = ["unseen", *NAMES]
    figure = domain_graph_figure(mixer.graph, mixer.graph_domain, names, nodes=NAMES)
    render(figure)
    shares = [percent(weight) for weight in mixer.graph.weights.tolist()]
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels == [f"{name}\n{share}" for name, share in zip(NAMES, shares, strict=True)]
    written = "\n".join(texts_of(figure))
    assert "distance of the joined nodes" in written
    assert not any(word in written for word in ("cluster", "human", "MMD", "n: sequences"))
    colours = {patch.get_facecolor()[:3] for patch in figure.axes[0].patches}
    assert {to_rgb(style_of(index).colour) for index in (1, 2, 3)} <= colours

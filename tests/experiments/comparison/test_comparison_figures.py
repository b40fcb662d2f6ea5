"""A comparison's figures, drawn: what they show, and that it can be read."""

import io
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from written_runs import DOMAINS, write_run

from dograph.experiments.comparison.comparison import compare
from dograph.experiments.comparison.figures import comparison_figures
from dograph.experiments.comparison.styles import COLOURS, core, method_styles


def test_figures_show_what_was_measured(study):
    comparison = compare([study])
    figures = comparison_figures(comparison)
    means, differences, _ = figures["loss"].axes
    # Drawn last: the baseline, above the others; its own difference is zero.
    end = means.lines[-1].get_ydata().tolist()[-1]
    assert end == pytest.approx(comparison.baseline.target.mean)
    assert not differences.lines[-1].get_ydata().any()
    ends = [line.get_ydata()[0] for line in means.child_axes[0].lines]
    assert ends == pytest.approx([method.target.mean for method in comparison.methods])
    cells = [text.get_text() for text in figures["domains"].axes[0].texts]
    assert f"{comparison.baseline.domains['code'].mean:.3f}" in cells
    assert len(cells) == 3 * (len(DOMAINS) + 3)
    titles = [axes.get_title(loc="left") for axes in figures["mixtures"].axes]
    assert titles[:3] == ["uniform", "other", "staged"]
    meanings = [axes.texts[0].get_text() for axes in figures["mixtures"].axes[:3]]
    assert meanings[2] == "weights that stage proxy found"


def test_a_method_without_a_common_seed_is_drawn(study, tmp_path):
    write_run(tmp_path / "apart_gpt2" / "seed_9", 9, [(5.0, 5.0), (3.5, 3.5)], "Fixed")
    for paths in ([study, tmp_path], [study / "uniform_gpt2", tmp_path]):
        figures = comparison_figures(compare(paths))
        for figure in figures.values():
            figure.savefig(io.BytesIO(), format="png")
        cells = [text.get_text() for text in figures["domains"].axes[0].texts]
        assert cells.count("–") == len(DOMAINS) + 3


@pytest.mark.parametrize(("domains", "methods"), [(2, 1), (12, 5), (30, 25)])
def test_no_text_is_cut_off_or_covered(domains, methods, tmp_path):
    random = np.random.default_rng(0)
    names = [f"domain_{index}_of_{['web', 'wikipedia'][index % 2]}" for index in range(domains)]
    for index in range(methods):
        name = f"method_number_{index}_with_words_gpt2" if index else "uniform_gpt2"
        mixer = "Fixed" if index else "Stratified"
        curve = [tuple(row) for row in random.normal(3, 0.2, (3, domains)).tolist()]
        write_run(tmp_path / name / "seed_0", 0, curve, mixer, domains=names)
    for name, figure in comparison_figures(compare([tmp_path])).items():
        FigureCanvasAgg(figure).draw()
        drawn, size = figure.get_tightbbox(), figure.get_size_inches()  # all texts are in it
        assert (drawn.min >= -0.01).all() and (drawn.max <= size + 0.01).all(), name
        legends = [legend.get_window_extent() for legend in figure.legends]
        panels = [axes for axes in figure.axes if axes.get_visible()]
        boxes = [axes.get_tightbbox() for axes in panels]
        assert not any(a.overlaps(b) for a, b in combinations([*boxes, *legends], 2)), name
        for axis in [axis for axes in panels for axis in (axes.xaxis, axes.yaxis)]:
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            labels = [t.label1.get_window_extent() for t in ticks if t.label1.get_visible()]
            assert not any(a.overlaps(b) for a, b in combinations(labels, 2)), name


def test_many_columns_have_a_scale_instead_of_numbers(tmp_path):
    for name, mixer, loss in (("uniform", "Stratified", 3.0), ("other", "Fixed", 3.25)):
        domains = [f"domain {index}" for index in range(13)]
        write_run(tmp_path / name / "seed_0", 0, [(loss,) * 13], mixer, domains=domains)
    cells, scale = comparison_figures(compare([tmp_path]))["domains"].axes
    assert not cells.texts
    marks = [label.get_text() for label in scale.get_yticklabels()]
    assert marks == ["−0.250", "−0.062", "+0.000", "+0.062", "+0.250"]


def test_a_method_looks_alike_in_every_comparison():
    alone = method_styles(["uniform_gpt2", "doge_gpt2", "mine_gpt2"])
    many = method_styles(["a/uniform", "doge_llama_15m", "mine", *map(chr, range(97, 122))])
    assert alone["uniform_gpt2"].colour == many["a/uniform"].colour == COLOURS["uniform"]
    assert alone["doge_gpt2"] == many["doge_llama_15m"]
    assert alone["mine_gpt2"].colour == many["mine"].colour


def test_looks_differ_among_methods():
    for count in (9, 25, 100):
        names = [*COLOURS, *(f"method_{index}" for index in range(count)), "uniform_gpt2"]
        looks = [(look.colour, look.line, look.marker) for look in method_styles(names).values()]
        assert len(set(looks)) == len(names)
    known = method_styles(COLOURS).values()
    assert len({look.colour for look in known}) == len(COLOURS)
    assert {look.line for look in known} == {"-"}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("dograph_anchored_gpt2", "dograph_anchored"),
        ("doge_online_gpt_neox", "doge_online"),
        ("mine/doge_llama_15m", "doge"),
        ("dograph_optimal", "dograph_optimal"),
        ("gpt2", "gpt2"),
    ],
)
def test_a_look_goes_by_the_name_without_the_model(name, short):
    assert core(name) == short

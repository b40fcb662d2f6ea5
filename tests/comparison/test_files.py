"""What a comparison leaves: tables, a page that needs nothing else, and the command."""

import csv
import itertools
import json
import math
import random
import re
from html.parser import HTMLParser

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from written_runs import DOMAINS, write_experiment, write_run, write_study

from dograph.cli import main
from dograph.comparison.comparison import compare
from dograph.comparison.curves import loss_curve
from dograph.comparison.figures import comparison_figures
from dograph.comparison.files import FILES
from dograph.comparison.looks import COLOURS, method_styles
from dograph.comparison.page import as_page, headline
from dograph.comparison.tables import as_markdown

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    runs = write_study(tmp_path_factory.mktemp("study"), spread=0.01)
    for seed in range(5):
        write_experiment(runs / "staged_gpt2" / f"seed_{seed}", seed, [(5.0, 5.0), (9.0, 9.5)])
    return runs


class Tags(HTMLParser):
    """Every tag with its attributes, and the page's text."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_all_formats_say_the_same(study, tmp_path, capsys):
    assert main(["compare", str(study), "--output", str(tmp_path / "out")]) == 0
    assert "other" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    other = content["methods"]["other_gpt2"]
    assert content["baseline"] == "uniform_gpt2"
    assert other["paired"]["verdict"] == "win"
    assert content["methods"]["staged_gpt2"]["paired"]["verdict"] == "loss"
    mean = other["paired"]["mean_loss"]
    shown = f"−{abs(mean['mean']):.3f} ± {mean['half_width']:.3f}"
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert re.search(rf"\| other \|.*\| {re.escape(shown)} \| win \|", markdown)
    assert shown in (tmp_path / "out" / "report.html").read_text()
    with (tmp_path / "out" / "comparison.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 15
    losses = [float(line["mean_loss"]) for line in lines if line["method"] == "other_gpt2"]
    assert sum(losses) / 5 == pytest.approx(other["mean_loss"]["mean"])


def test_accuracies_are_shown_where_tasks_were_evaluated(tmp_path, capsys):
    study = write_study(tmp_path, seeds=(0, 1))
    for seed, accuracy in ((0, 0.25), (1, 0.35)):
        entry = {"suite": "local_cloze", "examples": 10, "acc": accuracy}
        path = study / "other_gpt2" / f"seed_{seed}" / "tasks.json"
        path.write_text(json.dumps({"tasks": {"local_cloze_code": entry}}))
    markdown = as_markdown(compare([study])).splitlines()
    assert markdown[0].endswith("| accuracy, local cloze |")
    assert markdown[2].endswith("|  |")
    assert "| 0.300 ± 0.635 |" in markdown[3]
    assert main(["compare", str(study), "--format", "json"]) == 0
    other = json.loads(capsys.readouterr().out)["methods"]["other_gpt2"]
    assert other["accuracy"]["local_cloze"]["values"] == [0.25, 0.35]


def test_tasks_that_were_evaluated_otherwise_are_not_compared(tmp_path):
    study = write_study(tmp_path, seeds=(0, 1))
    for seed in (0, 1):
        entry = {"examples": 10, "acc": 0.5, "asked": 10 + seed, "seed": 0, "lm_eval": "1"}
        path = study / "other_gpt2" / f"seed_{seed}" / "tasks.json"
        path.write_text(json.dumps({"tasks": {"local_cloze_code": entry}}))
    result = compare([study])
    assert not result.suites
    assert any("not evaluated alike" in note for note in result.notes)


def test_tensorboard_is_written_where_it_is_asked_for(study, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", str(study), "--output", str(out), "--tensorboard"]) == 0
    assert "tensorboard --logdir" in capsys.readouterr().err
    assert list((out / "tensorboard" / "uniform").glob("events*"))
    assert main(["compare", str(study), "--tensorboard"]) == 2
    assert "--output FOLDER" in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(study, tmp_path, capsys):
    (tmp_path / "comparison.md").write_text("mine")
    assert main(["compare", str(study), "--output", str(tmp_path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "comparison.md").read_text() == "mine"
    assert main(["compare", str(study), "--output", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "comparison.md").read_text() != "mine"


def test_a_format_alone_goes_to_the_screen(study, capsys):
    for name, start in (("markdown", "| method"), ("csv", "method,seed"), ("json", "{")):
        assert main(["compare", str(study), "--format", name]) == 0
        assert capsys.readouterr().out.startswith(start)


def test_the_page_needs_nothing_from_elsewhere(study):
    comparison = compare([study])
    page = as_page(comparison, comparison_figures(comparison))
    parsed = Tags()
    parsed.feed(page)
    assert [tag for tag, _ in parsed.tags].count("svg") == 4
    for tag, attributes in parsed.tags:
        assert tag not in ("script", "link", "iframe", "img")
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith("#")
    assert "url(http" not in page
    assert "staged" in parsed.text
    assert "var(--ink)" in page
    assert "prefers-color-scheme: dark" in page


def test_names_are_shown_whatever_is_in_them(tmp_path):
    domains = (SCRIPT, "a|b $x$ & _c")
    for seed in (0, 1):
        curve = [(3.0, 3.0), (2.0, 2.0 + seed)]
        write_run(tmp_path / "uniform" / f"seed_{seed}", seed, curve, domains=domains)
        odd = tmp_path / "<b>bold</b>".replace("/", "") / f"seed_{seed}"
        write_run(odd, seed, curve, "Proportional", domains=domains)
    comparison = compare([tmp_path])
    page = as_page(comparison, comparison_figures(comparison))
    parsed = Tags()
    parsed.feed(page)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert "b" not in {tag for tag, _ in parsed.tags}
    assert SCRIPT in parsed.text
    markdown = as_markdown(comparison)
    assert "<script>" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("| uniform")]
    assert len(re.findall(r"(?<!\\)\|", rows[1])) == len(domains) + 2


def test_the_headline_names_every_method_once(study):
    text = headline(compare([study]))
    assert text == "Better than uniform: other; worse than uniform: staged."


def test_a_method_looks_alike_in_every_comparison():
    few = method_styles(["uniform_gpt2", "doge_gpt2", "mine"])
    many = method_styles([*(f"{name}_gpt2" for name in COLOURS), "mine", "yours", "theirs_llama"])
    for name, look in few.items():
        assert look == many[name]
    assert method_styles(["uniform"])["uniform"] == few["uniform_gpt2"]
    looks = [(look.colour, look.line) for look in many.values()]
    assert len(set(looks)) == len(looks)
    crowd = method_styles([f"method_{number}" for number in range(27)])
    assert len({(look.colour, look.line) for look in crowd.values()}) == 27


def test_few_seeds_give_a_direction_only(tmp_path):
    study = write_study(tmp_path, seeds=(0, 1, 2), spread=0.001)
    assert headline(compare([study])) == "Lower so far than uniform: other."


@pytest.mark.parametrize(("domains", "methods"), [(7, 9), (12, 5), (30, 25)])
def test_figures_hold_many_domains_and_methods(tmp_path, domains, methods):
    names = tuple(f"github_python_{number}" for number in range(domains))
    draw = random.Random(0)
    for method in range(methods):
        name, mixer = (f"method_{method}", "Proportional") if method else ("uniform", "Stratified")
        for seed in (0, 1):
            curve = [tuple(draw.uniform(2, 4) for _ in names) for _ in range(3)]
            write_run(tmp_path / name / f"seed_{seed}", seed, curve, mixer, domains=names)
    for name, figure in comparison_figures(compare([tmp_path])).items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height, name
            for axes in figure.axes:
                if axes.get_visible():
                    whole = axes.get_tightbbox()
                    assert not (
                        box.x0 < whole.x1 - 1
                        and whole.x0 < box.x1 - 1
                        and box.y0 < whole.y1 - 1
                        and whole.y0 < box.y1 - 1
                    ), f"the legend of {name} covers a panel"
        for axes in figure.axes:
            labels = [label.get_window_extent() for label in axes.get_xticklabels()]
            if axes.get_xticklabels() and not axes.get_xticklabels()[0].get_rotation():
                pairs = itertools.pairwise(labels)
                assert all(one.x1 <= other.x0 for one, other in pairs), name
            assert all(label.y0 >= -1 for label in labels), name


def test_a_method_without_a_common_seed_is_shown_without_differences(tmp_path):
    study = write_study(tmp_path, seeds=(0, 1))
    write_run(study / "apart_gpt2" / "seed_7", 7, [(5.0, 5.0), (3.0, 3.0)], "Proportional")
    comparison = compare([study])
    page = as_page(comparison, comparison_figures(comparison))
    assert "apart" in page
    assert comparison.methods[-1].paired is None or comparison.methods[1].paired is None


def test_a_domain_that_diverged_is_no_fine_curve(tmp_path):
    curve = [(5.0, float("nan")), (3.0, 3.0)]
    write_run(tmp_path / "uniform" / "seed_0", 0, curve)
    (method,) = compare([tmp_path]).methods
    worst = [point.mean for point in loss_curve(method, "worst").values()]
    assert math.isnan(worst[0]) and worst[1] == 3.0


def test_figures_on_one_page_share_no_ids_and_leave_names_alone(tmp_path):
    for seed in (0, 1):
        curve = [(3.0, 3.0), (2.0, 2.0 + seed)]
        write_run(tmp_path / "uniform" / f"seed_{seed}", seed, curve, domains=("#222222", "b"))
    comparison = compare([tmp_path])
    page = as_page(comparison, comparison_figures(comparison))
    parsed = Tags()
    parsed.feed(page)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 50
    asked = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert asked <= set(ids)
    assert parsed.text.count("#222222") >= 3


def test_figures_show_what_was_measured(study):
    comparison = compare([study])
    figures = comparison_figures(comparison)
    means, differences, _ = figures["loss"].axes
    # Drawn last: the baseline, above the others; its own difference is zero.
    assert means.lines[-1].get_ydata().tolist()[-1] == pytest.approx(comparison.baseline.mean.mean)
    assert not differences.lines[-1].get_ydata().any()
    cells = [text.get_text() for text in figures["domains"].axes[0].texts]
    assert f"{comparison.baseline.domains['code'].mean:.3f}" in cells
    assert len(cells) == 3 * (len(DOMAINS) + 2)
    titles = [axes.get_title(loc="left") for axes in figures["mixtures"].axes]
    assert titles[:3] == ["uniform", "other", "staged"]
    meanings = [axes.texts[0].get_text() for axes in figures["mixtures"].axes[:3]]
    assert meanings[2] == "weights that stage proxy found"

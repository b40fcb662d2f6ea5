"""What a comparison leaves: tables, a page that needs nothing else, and the command."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest
from full_files import room_for
from written_runs import write_run, write_study

import dograph
from dograph.cli.main import main
from dograph.experiments.comparison.comparison import compare
from dograph.experiments.comparison.figures import comparison_figures
from dograph.experiments.comparison.page import (
    FILES,
    as_page,
    headline,
    provenance,
)
from dograph.experiments.comparison.tables import as_markdown, summary_rows
from dograph.reports.pages import VARIABLES

SCRIPT = "<script>alert(1)</script>"


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
    assert (content["target"], content["unseen"]) == (None, [])
    assert "target loss (even)" in (tmp_path / "out" / "comparison.md").read_text()
    assert other["paired"]["verdict"] == "win"
    assert content["methods"]["staged_gpt2"]["paired"]["verdict"] == "loss"
    target = other["paired"]["target_loss"]
    shown = f"−{abs(target['mean']):.3f} ± {target['half_width']:.3f}"
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert re.search(rf"\| other \|.*\| {re.escape(shown)} \| win \|", markdown)
    assert shown in (tmp_path / "out" / "report.html").read_text()
    with (tmp_path / "out" / "comparison.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 15
    losses = [float(line["target_loss"]) for line in lines if line["method"] == "other_gpt2"]
    assert sum(losses) / 5 == pytest.approx(other["target_loss"]["mean"])


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


def test_accuracies_of_an_earlier_checkpoint_are_left_out(tmp_path):
    study = write_study(tmp_path, seeds=(0, 1))
    steps = {"other_gpt2": 20, "uniform_gpt2": 10}  # the runs end after 20
    for name, step in steps.items():
        for seed in (0, 1):
            entry = {"examples": 10, "acc": 0.5, "checkpoint_step": step}
            path = study / name / f"seed_{seed}" / "tasks.json"
            path.write_text(json.dumps({"tasks": {"local_cloze_code": entry}}))
    result = compare([study])
    shown = {method.name: set(method.accuracies) for method in result.methods}
    assert shown == {"uniform_gpt2": set(), "other_gpt2": {"local_cloze"}}
    stale = [note for note in result.notes if "earlier checkpoint" in note]
    assert len(stale) == 2
    assert f"{study / 'uniform_gpt2' / 'seed_0'} are left out" in stale[0]
    assert "tasks again: local_cloze_code" in stale[0]


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


def test_a_full_disk_leaves_the_files_before(study, tmp_path, capsys):
    command = ["compare", str(study), "--output", str(tmp_path)]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with room_for(1000):  # less than the page, more than the table
        assert main([*command, "--force"]) == 2
    assert "cannot be written: File too large" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


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


def test_fewer_than_five_pairs_are_no_claim(study, tmp_path):
    few = write_study(tmp_path / "few", seeds=(0, 1, 2), spread=0.001)
    assert headline(compare([few])) == "Lower so far than uniform: other."
    for seed in (0, 1, 2):
        curve = [(5.0, 5.0), (9.0 + 0.01 * seed, 9.0)]
        write_run(tmp_path / "late_gpt2" / f"seed_{seed}", seed, curve, "Fixed")
    write_run(tmp_path / "apart_gpt2" / "seed_9", 9, [(5.0, 5.0)], "Fixed")
    paths = [study, tmp_path / "late_gpt2", tmp_path / "apart_gpt2"]
    compared = compare(paths)
    assert headline(compared) == (
        "Better than uniform: other; higher so far than uniform: late; "
        "worse than uniform: staged; not paired with uniform: apart."
    )
    assert "Fewer than 5 seeds (3) show a direction and are no claim: late." in compared.notes
    assert {row[0]: row[6] for row in summary_rows(compared)} == {
        "uniform": "",
        "other": "win",
        "late": "behind",
        "staged": "loss",
        "apart": "",
    }
    assert headline(compare([study / "uniform_gpt2"])) == (
        "uniform alone: nothing to compare with."
    )


def test_ids_of_figures_are_their_own(study):
    comparison = compare([study])
    parsed = Tags()
    page = as_page(comparison, comparison_figures(comparison))
    parsed.feed(page)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 100
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert used and set(used) <= set(ids)


def test_colours_are_replaced_in_drawings_only(tmp_path):
    domains = ("#222222", 'style="fill: #e6e6e6"')
    for name, mixer in (("uniform", "Stratified"), ("#333333", "Fixed")):
        write_run(tmp_path / name / "seed_0", 0, [(3.0, 2.0)], mixer, domains=domains)
    comparison = compare([tmp_path])
    page = as_page(comparison, comparison_figures(comparison))
    parsed = Tags()
    parsed.feed(page)
    for name in (*domains, "#333333"):
        assert parsed.text.count(name) >= 3
    styles = [attributes.get("style", "") for _, attributes in parsed.tags]
    assert not [text for text in styles for colour in VARIABLES if colour.lower() in text.lower()]


def test_everything_that_differs_is_said(tmp_path):
    for name, mixer, tokens in (("uniform", "Stratified", 4000), ("other", "Fixed", 6000)):
        metadata = {"commit": f"of_{name}"}
        folder = tmp_path / name / "seed_0"
        write_run(folder, 0, [(3.0, 2.0)], mixer, tokens=tokens, more_metadata=metadata)
    shown = dict(provenance(compare([tmp_path], allowed=["tokens"])))
    assert shown["tokens trained on"] == "4,000 · 6,000"
    assert shown["commit"] == "of_uniform · of_other"
    assert shown["tokenizer"] == "beef"
    assert "n_embd 16" in shown["model"]


def test_a_notebook_shows_a_comparison_and_takes_its_numbers(study):
    comparison = dograph.compare([str(study)])
    records = comparison.records()
    assert [each["folder"] for each in records] == [run.folder for run in comparison.runs]
    assert [each["mean_loss"] for each in records] == [run.mean_loss for run in comparison.runs]
    assert f"<td>{comparison.baseline.label}</td>" in comparison._repr_html_()


def test_the_page_links_to_the_pages_that_runs_have(study, tmp_path):
    comparison = compare([study])
    assert "<a href" not in as_page(comparison, {}, tmp_path / "out")
    first = comparison.runs[0].folder
    (first / "report.html").write_text("page")
    links = re.findall(r'<a href="([^"]+)">', as_page(comparison, {}, tmp_path / "out"))
    (first / "report.html").unlink()
    (link,) = links
    assert (tmp_path / "out" / link).resolve() == (first / "report.html").resolve()

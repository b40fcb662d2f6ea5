"""The share of an oracle's gain that each method reaches: numbers, where it is shown, refusals."""

import json
import shutil

import numpy as np
import pytest
from written_runs import write_run

from dograph.cli.main import main
from dograph.experiments.comparison.comparison import compare
from dograph.experiments.comparison.figures import comparison_figures
from dograph.experiments.comparison.gap import share
from dograph.experiments.comparison.page import as_page
from dograph.experiments.comparison.tables import as_markdown, as_narrow_markdown

START = (6.0, 6.0)
SEEDS = range(5)


def write_methods(runs, gaps=(0.4, 0.5, 0.4, 0.5, 0.4), half=0.5, seeds=SEEDS):
    """Uniform, a method that reaches ``half`` of the gaps, one that loses, and an oracle."""
    for seed, gap in zip(seeds, gaps, strict=True):
        base = 3.0 + 0.2 * seed
        for name, gain, mixer in (
            ("uniform_gpt2", 0.0, "Stratified"),
            ("good_gpt2", half * gap, "Proportional"),
            ("bad_gpt2", -0.1, "Temperature"),
            ("uniform_gpt2_oracle", gap, "Fixed"),
        ):
            end = (base - gain, base - gain)
            more = {"digest": f"{name}_{seed}"}
            write_run(runs / name / f"seed_{seed}", seed, [START, end], mixer, more_metadata=more)
    digests = [f"uniform_gpt2_oracle_{seed}" for seed in seeds]
    record = {"finished": True, "validated": {"digests": digests}}
    (runs / "uniform_gpt2_oracle" / "oracle.json").write_text(json.dumps(record))
    return runs


def test_shares_are_ratios_of_means_with_a_paired_interval(tmp_path):
    result = compare([write_methods(tmp_path)])
    assert result.gap.oracle == "uniform_gpt2_oracle"
    assert result.gap.ahead.mean == pytest.approx(0.44)
    good, bad, oracle = (
        result.gap.shares[f"{name}_gpt2{end}"]
        for name, end in (("good", ""), ("bad", ""), ("uniform", "_oracle"))
    )
    # Half of each seed's gap: drawing whole seeds leaves nothing uncertain.
    assert (good.mean, good.low, good.high) == pytest.approx((0.5, 0.5, 0.5))
    assert (oracle.mean, oracle.low, oracle.seeds) == (1, None, 5)
    assert bad.mean == pytest.approx(-0.1 / 0.44)
    assert bad.low < bad.mean < bad.high < 0
    assert "uniform_gpt2" not in result.gap.shares
    assert [method.label for method in result.methods] == [
        "uniform",
        "uniform oracle",
        "good",
        "bad",
    ]


def test_every_output_shows_the_shares(tmp_path, capsys):
    runs = write_methods(tmp_path)
    result = compare([runs])
    heading, _, base, oracle, good, bad = as_markdown(result).splitlines()[:6]
    place = heading.split(" | ").index("of the gap")
    assert [line.split(" | ")[place].strip() for line in (base, oracle, good)] == [
        "",
        "100 %",
        "50 % \\[50, 50\\]",
    ]
    assert "−23 % \\[−2" in bad
    page = as_page(result, comparison_figures(result))
    assert "<th>of the gap</th>" in page
    assert "Of the gap: the mean gain" in page
    narrow = as_narrow_markdown(result)
    assert "| of the gap |" in narrow["less_the_baseline"]
    assert "| tokens to uniform's end |" in narrow["tokens_and_time"]
    assert "worst less" not in narrow["tokens_and_time"]
    assert main(["compare", str(runs)]) == 0
    assert "50 % [50" in capsys.readouterr().out
    assert main(["compare", str(runs), "--format", "json"]) == 0
    gap = json.loads(capsys.readouterr().out)["gap"]
    assert gap["ahead"]["mean"] == pytest.approx(0.44)
    assert gap["shares"]["good_gpt2"]["mean"] == pytest.approx(0.5)


def test_without_a_gap_a_note_says_so(tmp_path):
    result = compare([write_methods(tmp_path, gaps=(0.1, -0.1, 0.05, -0.05, 0.02))])
    assert not result.gap.shares
    assert "uniform oracle is not surely ahead of uniform (0.004 ± " in "".join(result.notes)
    assert "| of the gap |" not in as_markdown(result)


def test_a_method_whose_own_seeds_show_no_gap_has_no_share(tmp_path):
    runs = write_methods(tmp_path, gaps=(0.4, 0.5, 0.4, 0.5, 0.01))
    for seed in range(4):
        shutil.rmtree(runs / "good_gpt2" / f"seed_{seed}")
    result = compare([runs])
    assert set(result.gap.shares) == {"bad_gpt2", "uniform_gpt2_oracle"}
    assert any("No share of the gap is shown for good: " in note for note in result.notes)


@pytest.mark.parametrize("record", ["{}", "{", '{"validated": {"digests": ["other"]}}', "[]"])
def test_an_oracle_is_known_by_its_record_not_its_name(tmp_path, record):
    runs = write_methods(tmp_path)
    (runs / "uniform_gpt2_oracle" / "oracle.json").write_text(record)
    result = compare([runs])
    assert result.gap is None
    assert not any("gap" in note or "oracle of" in note for note in result.notes)


def test_the_bootstraps_interval_covers_the_truth():
    draw, inside = np.random.default_rng(0), 0
    for _ in range(200):
        gaps = draw.normal(0.4, 0.05, 8)
        gains = 0.6 * gaps + draw.normal(0, 0.03, 8)
        found = share(gains, gaps)
        inside += found.low <= 0.6 <= found.high
    assert 0.85 <= inside / 200 <= 1


def test_one_seed_has_no_interval():
    alone = share(np.array([0.2]), np.array([0.4]))
    assert str(alone) == "50 %"


def test_an_oracle_of_another_target_is_a_method_as_others(tmp_path):
    runs = write_methods(tmp_path)
    for seed in SEEDS:
        path = runs / "uniform_gpt2_oracle" / f"seed_{seed}" / "recipe.yaml"
        path.write_text(path.read_text() + "target: code\n")
    result = compare([runs], allowed=["target"])
    assert result.gap is None
    assert "No oracle of the target even, so a method as others: uniform oracle." in result.notes
    assert "uniform oracle" in [method.label for method in result.methods]

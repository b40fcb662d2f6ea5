"""What an oracle's result says, of known losses."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from dograph.experiments.oracle.mixture_runs import MixtureRun, fixed, name_of
from dograph.experiments.oracle.result import Fit, OracleResult, Tried, described
from dograph.reports.summary import DomainSummary, RunSummary

WEIGHTS = {"code": 0.9, "web": 0.07, "books": 0.025, "[red]": 0.005}


def run(seed, loss):
    domain = DomainSummary("code", 1.0, 1.0, 1000, 0.1, loss, 9.0, 1.0, 1.0)
    summary = RunSummary("Fixed", 10, 2.5, 1e9, (domain,), {}, None)
    return MixtureRun(Path("runs", f"mixture_{seed}", "seed_1000"), seed, f"d{seed}", loss, summary)


def result(gains, target="law"):
    tried = tuple(Tried(1, WEIGHTS, run(seed, 4.0 + 0.1 * seed)) for seed in range(12))
    fit = Fit("Matern", 0.01, 0.02, 0.3, WEIGHTS, 3.5, 0.015, 4.01)
    even = tuple(run(seed, 4.0 + seed) for seed in range(len(gains)))
    oracle = tuple(run(seed, 4.0 + seed - gain) for seed, gain in enumerate(gains))
    return OracleResult("own_oracle", target, tried, fit, oracle, even)


def test_the_gap_is_paired_by_seed_and_in_the_sentence():
    given = result([0.4, 0.5, 0.45])
    assert given.gap.mean == pytest.approx(0.45)
    assert given.sentence == (
        "the best fixed mixture for law: code 0.90, web 0.07, books 0.03, others 0.01: "
        "0.450 ± 0.124 nats ahead of even"
    )
    assert result([0.4]).sentence.endswith("0.400 nats ahead of even")


@pytest.mark.parametrize("gains", [[0.01, -0.02, 0.02], [-0.1]])
def test_without_a_gap_the_sentence_claims_none(gains):
    sentence = result(gains, "the even target").sentence
    assert sentence.startswith("no fixed mixture is surely ahead of even for the even target")


def test_the_file_holds_every_mixture_and_costs_apart():
    content = json.loads(json.dumps(result([0.4, 0.5]).as_json()))
    assert len(content["mixtures"]) == 12
    assert content["mixtures"][0] == {
        "round": 1,
        "weights": WEIGHTS,
        "loss": 4.0,
        "folder": "mixture_0",
    }
    assert content["cost"] == {
        "search": {"runs": 12, "tokens": 12_000, "flops": 12e9, "seconds": 30},
        "validation": {"runs": 4, "tokens": 4_000, "flops": 4e9, "seconds": 10},
    }
    assert content["optimum"]["standard_deviation"] == 0.015
    assert content["gaussian_process"]["leave_one_out_error"] == 0.02
    assert content["validated"]["digests"] == ["d0", "d1"]


def test_the_table_shows_the_best_mixtures_and_the_validation():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(result([0.4, 0.5]).table())
    text = console.export_text()
    assert "loss of 12 fixed mixtures" in text
    assert "3.5000 ± 0.0150" in text
    assert text.count("code 0.90") == 9  # the eight best, and the optimum
    assert "leave-one-out error 0.0200 nats" in text
    assert "search: 12 runs, 12,000 tokens, 30 s" in text


def test_a_mixture_has_one_name_and_a_readable_text():
    assert name_of(WEIGHTS) == name_of(dict(reversed(WEIGHTS.items())))
    assert name_of(WEIGHTS) != name_of({**WEIGHTS, "web": 0.08})
    assert described({"a": 0.5, "b": 0.5}) == "a 0.50, b 0.50"
    assert fixed(WEIGHTS)["init_args"]["weights"] == WEIGHTS

"""What a search for the best fixed mixture gave: as JSON, as a table, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dograph.experiments.comparison.statistics import Estimate, estimate
from dograph.experiments.oracle.mixture_runs import MixtureRun
from dograph.reports.summary import total_cost

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 8
"""Mixtures in the table."""
NAMED = 4
"""Domains that a mixture's text names, of those with at least a hundredth."""


@dataclass(frozen=True)
class Tried:
    """A mixture that was tried, once."""

    round: int
    weights: dict[str, float]
    run: MixtureRun


@dataclass(frozen=True)
class Fit:
    """The Gaussian process of the losses, and its optimum.

    Attributes:
        kernel: with its fitted parameters, on losses of mean 0 and variance 1.
        noise: standard deviation of the losses' noise, in nats.
        loo_error: root mean square error of predicting each loss from all others, in nats.
        loss_spread: standard deviation of the losses themselves, in nats.
        weights: the mixture of the lowest expected loss.
        expected: its expected loss, in nats, for the seed of the search.
        deviation: standard deviation of that.
        expected_even: expected loss of the even mixture.
    """

    kernel: str
    noise: float
    loo_error: float
    loss_spread: float
    weights: dict[str, float]
    expected: float
    deviation: float
    expected_even: float


@dataclass(frozen=True)
class OracleResult:
    """The best fixed mixture of a recipe's domains, validated beside the even one.

    Attributes:
        name: of the validated runs' recipe.
        target: what the target is called in a sentence.
        tried: every mixture of the search.
        fit: what the search ended with.
        oracle: the optimum's runs, by seed.
        even: the even mixture's runs with the same seeds.
    """

    name: str
    target: str
    tried: tuple[Tried, ...]
    fit: Fit
    oracle: tuple[MixtureRun, ...]
    even: tuple[MixtureRun, ...]

    @property
    def gap(self) -> Estimate:
        """How far the optimum is ahead of even, in nats, paired by seed."""
        pairs = zip(self.even, self.oracle, strict=True)
        return estimate([even.loss - oracle.loss for even, oracle in pairs])

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        gap, mixture = self.gap, described(self.fit.weights)
        half = "" if gap.half is None else f" ± {gap.half:.3f}"
        lowest = gap.bounds[0] if gap.bounds else gap.mean
        if lowest <= 0:
            return (
                f"no fixed mixture is surely ahead of even for {self.target}; the best estimate, "
                f"{mixture}, is ahead by {gap.mean:.3f}{half} nats"
            ).replace("-0.", "−0.")
        ahead = f"{gap.mean:.3f}{half} nats ahead of even"
        return f"the best fixed mixture for {self.target}: {mixture}: {ahead}"

    def as_json(self) -> dict[str, Any]:
        """All of it; losses in nats, intervals as half widths of 95 %."""
        search, validation = [each.run for each in self.tried], [*self.oracle, *self.even]
        return {
            "name": self.name,
            "target": self.target,
            "sentence": self.sentence,
            "optimum": {
                "weights": self.fit.weights,
                "expected_loss": self.fit.expected,
                "standard_deviation": self.fit.deviation,
                "expected_loss_of_even": self.fit.expected_even,
            },
            "gaussian_process": {
                "kernel": self.fit.kernel,
                "noise": self.fit.noise,
                "leave_one_out_error": self.fit.loo_error,
                "losses_standard_deviation": self.fit.loss_spread,
            },
            "validated": {
                "seeds": [run.seed for run in self.oracle],
                "loss": _as_json(estimate([run.loss for run in self.oracle])),
                "loss_of_even": _as_json(estimate([run.loss for run in self.even])),
                "gap": _as_json(self.gap),
                "digests": [run.digest for run in self.oracle],
            },
            "cost": {
                "search": {"runs": len(search), **_cost(search)},
                "validation": {"runs": len(validation), **_cost(validation)},
            },
            "mixtures": tried_as_json(self.tried),
        }

    def table(self) -> Table:
        """The best mixtures that were tried, then the optimum and the even one, validated."""
        from rich.text import Text

        from dograph.terminal.tables import screen_table

        title = f"{self.target}: loss of {len(self.tried)} fixed mixtures, in nats"
        table = screen_table(title, "mixture", "round", "loss", "expected", caption=self._caption())
        best = sorted(self.tried, key=lambda each: each.run.loss)[:SHOWN]
        for each in best:
            table.add_row(Text(described(each.weights)), str(each.round), f"{each.run.loss:.4f}")
        table.add_section()
        expected = f"{self.fit.expected:.4f} ± {self.fit.deviation:.4f}"
        seeds = f"{len(self.oracle)} seeds"
        for name, runs, prediction in (
            (described(self.fit.weights), self.oracle, expected),
            ("even", self.even, f"{self.fit.expected_even:.4f}"),
        ):
            loss = estimate([run.loss for run in runs])
            half = "" if loss.half is None else f" ± {loss.half:.4f}"
            table.add_row(Text(name), seeds, f"{loss.mean:.4f}{half}", prediction)
        return table

    def _caption(self) -> str:
        fit, cost = self.fit, self.as_json()["cost"]
        costs = "; ".join(
            f"{part}: {spent['runs']} runs, {spent['tokens']:,.0f} tokens, "
            f"{spent['seconds']:,.0f} s of training"
            for part, spent in cost.items()
        )
        return (
            f"Gaussian process: leave-one-out error {fit.loo_error:.4f} nats, where losses have a "
            f"standard deviation of {fit.loss_spread:.4f}; noise {fit.noise:.4f}.\nCost: {costs}."
        )


def described(weights: Mapping[str, float]) -> str:
    """A mixture's largest weights in words: "code 0.88, web 0.07, others 0.05"."""
    largest = sorted(weights.items(), key=lambda item: -item[1])
    shown = [(name, weight) for name, weight in largest[:NAMED] if weight >= 0.01]
    rest = 1 - sum(weight for _, weight in shown)
    texts = [f"{name} {weight:.2f}" for name, weight in shown]
    return ", ".join([*texts, f"others {rest:.2f}"] if rest >= 0.005 else texts)


def tried_as_json(tried: Sequence[Tried]) -> list[dict[str, Any]]:
    """Round, weights, loss and folder of each mixture."""
    return [
        {
            "round": each.round,
            "weights": each.weights,
            "loss": each.run.loss,
            "folder": each.run.folder.parent.name,
        }
        for each in tried
    ]


def _as_json(value: Estimate) -> dict[str, Any]:
    return {"mean": value.mean, "half_width": value.half, "values": list(value.values)}


def _cost(runs: Sequence[MixtureRun]) -> dict[str, float]:
    return total_cost([run.summary for run in runs])

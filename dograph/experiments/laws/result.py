"""What a fit says: as JSON, as tables, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dograph.experiments.laws.crossval import LossErrors
from dograph.experiments.laws.table import Floats
from dograph.experiments.oracle.result import described

if TYPE_CHECKING:
    from rich.table import Table

MOST_COLUMNS = 12
"""Domains of the interaction table on a screen; fit.json has all."""


@dataclass(frozen=True)
class Mixture:
    """Weights by domain, and the target's loss with them: expected, or measured if tried."""

    weights: Mapping[str, float]
    loss: float


@dataclass(frozen=True)
class FitResult:
    """A law's errors, its interactions, and the mixtures that follow from it.

    Attributes:
        law: its name; ``note`` says what differs from the publication.
        domains, names: of weights and of losses.
        target: how much each loss counts.
        prior: (S,) mixture that the search began at.
        errors: out of fold, by loss.
        target_errors: the same of the target.
        interactions: by loss, (S,) changes when a tenth of the weight moves to each domain.
        parameters: of the law, by loss.
        proposal: the mixture of the lowest expected loss that keeps the limits.
        gap: by how much at most it misses the law's least; None where the search is not exact.
        worst: a mixture that the law expects to be bad, to check the law by.
        at_prior: the prior's expected loss.
        best_tried: the best mixture that was tried, with its measured loss.
        limits: largest weights; ``pull`` weighs the divergence from the prior.
        mixtures, rows: distinct mixtures, and ends of training.
        sources: digests of files or runs; ``cost`` of runs in tokens, FLOPs and seconds.
        notes: what was left out.
    """

    law: str
    note: str
    domains: tuple[str, ...]
    names: tuple[str, ...]
    target: Mapping[str, float]
    prior: Floats
    errors: Mapping[str, LossErrors]
    target_errors: LossErrors
    interactions: Mapping[str, list[float]]
    parameters: Mapping[str, Any]
    proposal: Mixture
    gap: float | None
    worst: Mixture
    at_prior: Mixture
    best_tried: Mixture
    limits: Mapping[str, float]
    pull: float
    mixtures: int
    rows: int
    sources: Mapping[str, str]
    cost: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def gain(self) -> float:
        """How far the proposal is expected to be ahead of the prior, in nats."""
        return self.at_prior.loss - self.proposal.loss

    @property
    def target_name(self) -> str:
        """What the target is called in a sentence."""
        counted = {name: weight for name, weight in self.target.items() if weight > 0}
        if len(counted) == 1:
            return next(iter(counted))
        if len(set(counted.values())) == 1:
            every = "all" if len(counted) == len(self.names) else f"{len(counted)}"
            return f"the mean of {every} losses"
        return described(counted)

    @property
    def sentence(self) -> str:
        """The result, as far as the fit can be trusted."""
        of, what = self.target_errors, self.target_name
        if math.isnan(of.error):
            return (
                f"for {what} law {self.law} proposes {described(self.proposal.weights)}: by its "
                f"own reckoning {self.gain:.3f} nats ahead of the prior, and no mixture that was "
                "trained tells how far to trust that: run it to be sure"
            )
        if of.error >= of.spread:
            return (
                f"law {self.law} says nothing about {what}: out of fold it errs by {of.error:.3f} "
                f"nats, and the losses differ by {of.spread:.3f}: try another law or more mixtures"
            )
        mixture = described(self.proposal.weights)
        if self.gain <= self.doubt:
            return (
                f"for {what} no mixture is surely ahead of the prior: the best by law {self.law}, "
                f"{mixture}, is expected {self.gain:.3f} nats ahead, where {self._doubt_text}"
            ).replace("-0.", "−0.")
        return (
            f"for {what} law {self.law} proposes {mixture}: {self.gain:.3f} nats ahead of the "
            f"prior, where {self._doubt_text}{self._tried_text}: run it to be sure"
        )

    @property
    def _tried_text(self) -> str:
        """What a tried mixture that is better than the law's least says against the law."""
        ahead, tried = self.proposal.loss - self.best_tried.loss, self.best_tried.weights
        within = all(tried[name] <= most + 1e-6 for name, most in self.limits.items())
        if not within or ahead <= (self.target_errors.noise or 0.0):
            return ""
        return f"; {described(tried)} was tried and is {ahead:.3f} nats better yet"

    @property
    def doubt(self) -> float:
        """The larger of out-of-fold error and noise, in nats."""
        return max(self.target_errors.error, self.target_errors.noise or 0.0)

    @property
    def _doubt_text(self) -> str:
        of = self.target_errors
        noise = "" if of.noise is None else f" and repeats differ by {of.noise:.3f}"
        return f"the law errs by {of.error:.3f} out of fold{noise}"

    def as_json(self) -> dict[str, Any]:
        """All of it; losses in nats."""
        mixtures = ("proposal", "worst", "at_prior", "best_tried")
        by_domain = dict(zip(self.domains, self.prior.tolist(), strict=True))
        return {
            "law": self.law,
            "note": self.note,
            "sentence": self.sentence,
            "weights": dict(self.proposal.weights),
            "target": dict(self.target),
            **{name: vars(getattr(self, name)) for name in mixtures},
            "gap": self.gap,
            "prior": by_domain,
            "limits": dict(self.limits),
            "pull": self.pull,
            "errors": {
                "target": self.target_errors.as_json(),
                "losses": {name: each.as_json() for name, each in self.errors.items()},
            },
            "interactions": {
                name: dict(zip(self.domains, row, strict=True))
                for name, row in self.interactions.items()
            },
            "parameters": dict(self.parameters),
            "domains": list(self.domains),
            "mixtures": self.mixtures,
            "rows": self.rows,
            "sources": dict(self.sources),
            "cost": dict(self.cost),
            "notes": list(self.notes),
        }

    def tables(self) -> list[Table]:
        """Errors by loss, interactions, and the mixtures."""
        return [self._errors_table(), self._interaction_table(), self._mixture_table()]

    def _errors_table(self) -> Table:
        from dograph.terminal.tables import screen_table

        title = f"law {self.law}, {self.mixtures} mixtures, {self.rows} runs: out of fold, in nats"
        headings = ("error", "losses' spread", "noise", "rank correlation")
        table = screen_table(title, "loss", *headings, caption=self.note or None)
        for name, each in self.errors.items():
            table.add_row(name, *_cells(each))
        table.add_section()
        table.add_row(f"target: {self.target_name}", *_cells(self.target_errors))
        return table

    def _interaction_table(self) -> Table:
        from dograph.terminal.tables import screen_table

        shown = self.domains[:MOST_COLUMNS]
        rest = "" if len(shown) == len(self.domains) else "; fit.json has all domains"
        title = f"change of a loss when 0.1 of the prior's weight moves to a domain, in nats{rest}"
        table = screen_table(title, "loss", *shown)
        for name, row in self.interactions.items():
            table.add_row(
                name, *(f"{change:+.3f}".replace("-", "−") for change in row[:MOST_COLUMNS])
            )
        return table

    def _mixture_table(self) -> Table:
        from dograph.terminal.tables import screen_table

        columns = {
            "proposed": self.proposal,
            "prior": self.at_prior,
            "best tried": self.best_tried,
            "worst": self.worst,
        }
        table = screen_table("mixtures for the target", "domain", *columns)
        for name in self.domains:
            table.add_row(name, *(f"{each.weights[name]:.4f}" for each in columns.values()))
        table.add_section()
        losses = [f"{each.loss:.4f}" for each in columns.values()]
        losses[2] += " measured"
        table.add_row("expected loss", *losses)
        return table


def _cells(each: LossErrors) -> list[str]:
    def cell(number: float | None, decimals: int = 4) -> str:
        unknown = number is None or math.isnan(number)
        return "–" if unknown else f"{number:.{decimals}f}".replace("-", "−")

    return [cell(each.error), cell(each.spread), cell(each.noise), cell(each.spearman, 3)]

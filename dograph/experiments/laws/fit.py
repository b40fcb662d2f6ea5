"""Fits a law to every loss of a table, judges it, and proposes a mixture for a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rich.console import Console

from dograph.errors import UserError, check_range, nearest
from dograph.experiments.laws.crossval import LossErrors, errors, fold_of_rows, out_of_fold
from dograph.experiments.laws.exponential import BiMix, Exponential
from dograph.experiments.laws.law import FittedLaw, Law
from dograph.experiments.laws.mixmin import MixMin, descend
from dograph.experiments.laws.proposal import (
    CHUNK,
    DRAWS,
    Optimum,
    draws,
    duality_gap,
    limits,
    minimise,
    project,
    simulate,
)
from dograph.experiments.laws.regression import GaussianProcess, Linear, RegMix
from dograph.experiments.laws.result import FitResult, Mixture
from dograph.experiments.laws.table import ALONE, Floats, MixtureTable, Places, Points
from dograph.experiments.oracle.design import rounded, search_around
from dograph.experiments.recipe.compose import COMMAND_LINE
from dograph.graph.polytope import Distance, Polytope
from dograph.terminal.progress import progress_of

LAWS: dict[str, Callable[[], Law]] = {
    "exponential": lambda: Exponential("exponential", delta=0.05),
    "log-linear": lambda: Exponential("log-linear", delta=0.02, pull=0.1),
    "bimix": BiMix,
    "regmix": RegMix,
    "linear": Linear,
    "gp": GaussianProcess,
    "mixmin": MixMin,
}
"""Forms of laws by name, with published settings: Huber deltas, olmix's divergence."""
MOVED = 0.1
"""How much weight moves to a domain in the interaction table."""
EVEN = "even"
TOKENS = "tokens"


@dataclass(frozen=True)
class FitSettings:
    """What is asked of a fit.

    Attributes:
        law: a name in ``LAWS``.
        target: "mean", a loss's name, or weights by name; None: the runs' own.
        prior: "tokens" (shares of the domains' sizes), "even", or weights by name; None: tokens
            where they are known, else the mean of the mixtures.
        at_most: largest shares by domain.
        tokens: of the run that is planned; with it no domain is repeated more than ``epochs``.
        epochs: most passes through a domain.
        sizes: tokens by domain; they replace the table's.
        pull: weight of the divergence from the prior; None: the law's published one.
        folds: of the cross-validation, ≥ 2.
        seed: of folds and draws.
    """

    law: str = "exponential"
    target: Any = None
    prior: Any = None
    at_most: Mapping[str, float] = field(default_factory=dict)
    tokens: float | None = None
    epochs: float = 4.0
    sizes: Mapping[str, float] = field(default_factory=dict)
    pull: float | None = None
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            hint = nearest(self.law, list(LAWS)) or f": choose one of {', '.join(LAWS)}"
            raise UserError(f"{COMMAND_LINE}: law is {self.law!r}{hint}")
        check_range(f"{COMMAND_LINE}: folds", self.folds, at_least=2)
        for key, value in (("epochs", self.epochs), ("tokens", self.tokens)):
            if value is not None:
                check_range(f"{COMMAND_LINE}: {key}", value, above=0)
        if self.pull is not None:
            check_range(f"{COMMAND_LINE}: pull", self.pull, at_least=0)


class Fit:
    """A law fitted to all losses of a table; ``run`` gives the result."""

    def __init__(
        self,
        table: MixtureTable,
        settings: FitSettings,
        console: Console | None = None,
        within: Polytope | None = None,
        distance: Distance = "kl",
    ) -> None:
        self.law, self.settings = LAWS[settings.law](), settings
        self.table = table if self.law.knows_steps else table.ends()
        self.target = table.target if settings.target is None else settings.target
        if self.target == "worst" and "worst" not in table.names:
            raise UserError(
                "target is worst, which is no mean of losses: name domains with --target"
            )
        self.counted = table.target_weights(self.target)
        if isinstance(self.law, BiMix):
            for loss in np.flatnonzero(self.counted):
                self.law.check_own(table.own(int(loss)))
        if unknown := [name for name in settings.sizes if name not in table.domains]:
            hint = nearest(unknown[0], table.domains) or f"; there are {', '.join(table.domains)}"
            raise UserError(f"--sizes names {unknown[0]!r}, which no mixture draws{hint}")
        self.sizes = {**table.sizes, **settings.sizes}
        self.prior = self._prior()
        args = (settings.at_most, settings.tokens, settings.epochs, self.sizes)
        self.most = limits(table.domains, *args)
        self.within, self.distance = within, distance
        if within is not None:
            self.most = np.minimum(self.most, within.upper)
            self.within = replace(within, upper=self.most)
            self._check_limits()
        self.pull = self.law.pull if settings.pull is None else settings.pull
        self._check_count()
        self.fitted: list[FittedLaw | None] = []
        self.console = console

    def run(self) -> FitResult:
        """Fit, cross-validate, search; show progress on the console."""
        table, law = self.table, self.law
        predicted, by_loss = self._fit_losses()
        aim = self.counted > 0
        of_target = errors(
            table,
            table.losses @ self.counted,
            predicted[:, aim] @ self.counted[aim],
            self._predictable(aim),
        )
        best, worst = self._search()
        best = self._allowed(best)
        return FitResult(
            law=law.name,
            note=law.note,
            domains=table.domains,
            names=table.names,
            target=dict(zip(table.names, self.counted.tolist(), strict=True)),
            prior=self.prior,
            errors=by_loss,
            target_errors=of_target,
            interactions=self._interactions(),
            parameters={
                name: fitted.as_json()
                for name, fitted in zip(table.names, self.fitted, strict=True)
                if fitted is not None
            },
            proposal=self._mixture(self._short(best.weights)),
            gap=best.gap,
            worst=self._mixture(self._short(worst)),
            at_prior=self._mixture(self.prior),
            best_tried=self._best_tried(),
            limits=dict(zip(table.domains, self.most.tolist(), strict=True)),
            pull=self.pull,
            mixtures=table.count,
            rows=int(table.at_end.sum()),
            sources=dict(table.sources),
            cost=dict(table.cost),
            notes=table.notes,
        )

    def _prior(self) -> Floats:
        domains, given = self.table.domains, self.settings.prior
        known = all(name in self.sizes for name in domains)
        if given == TOKENS and not known:
            raise UserError("--prior tokens: not all domains' tokens are known: give --sizes")
        if given == EVEN:
            prior = np.ones(len(domains))
        elif isinstance(given, Mapping):
            if unknown := [name for name in given if name not in domains]:
                hint = nearest(unknown[0], domains) or f"; there are {', '.join(domains)}"
                raise UserError(f"--prior names {unknown[0]!r}, which no mixture draws{hint}")
            prior = np.array([float(given.get(name, 0.0)) for name in domains])
        elif known:
            prior = np.array([self.sizes[name] for name in domains])
        else:
            prior = self.table.mixtures.mean(axis=0)
        if not (prior >= 0).all() or not prior.sum() > 0:
            raise UserError(f"--prior is {given}: give numbers ≥ 0, at least one above 0")
        return np.asarray(prior / prior.sum(), dtype=np.float64)

    def _check_count(self) -> None:
        """Refuse more parameters than mixtures are left in cross-validation."""
        several = len(np.unique(self.table.steps)) > 1
        needed = self.law.parameters(len(self.table.domains), several) + 1
        if self.table.count < needed:
            fewer = "" if self.law.name == "gp" else ", or use --law gp"
            raise UserError(
                f"law {self.law.name} has {needed - 1} parameters for each loss, and there are "
                f"{self.table.count} mixtures: add mixtures{fewer}"
            )

    def _fit_loss(self, loss: int) -> FittedLaw | None:
        """Fit one loss; None for one that neither the law can predict nor the target counts."""
        table = self.table
        try:
            return self.law.fit_loss(table, loss)
        except UserError:
            if self.counted[loss] > 0:
                raise
            return None

    def _fit_losses(self) -> tuple[Floats, dict[str, LossErrors]]:
        """Fit and cross-validate: (n, T) predictions out of fold, errors of losses with a law."""
        table, fold = self.table, self._folds()
        predicted, by_loss = np.full(table.losses.shape, np.nan), {}
        self.fitted = []
        name, total = f"law {self.law.name}", len(table.names)
        with progress_of(self.console, name, total, "losses") as advance:
            for loss in range(total):
                fitted = self._fit_loss(loss)
                self.fitted.append(fitted)
                if fitted is not None:
                    values, guessed = table.losses[:, loss], predicted[:, loss]
                    guessed[:] = out_of_fold(self.law, table, loss, fitted, fold)
                    rows = self._predictable(np.arange(total) == loss)
                    by_loss[table.names[loss]] = errors(table, values, guessed, rows)
                advance(1)
        return predicted, by_loss

    def _folds(self) -> Places:
        """(n,) fold of each row; one for each mixture if the law needs that many to fit."""
        table, count = self.table, self.table.count
        needed = self.law.parameters(len(table.domains), len(np.unique(table.steps)) > 1)
        enough = count - -(-count // self.settings.folds) >= needed
        folds = self.settings.folds if enough else count
        return fold_of_rows(table.groups, folds, self.settings.seed)

    def _predictable(self, losses: Any) -> Any:
        """(n,) rows for which the law can predict these losses out of fold.

        BiMix's need the own domain, and MixMin is made of the runs of one domain alone.
        """
        rows = np.ones(len(self.table.losses), dtype=bool)
        if isinstance(self.law, MixMin):
            rows &= self.table.mixtures.max(axis=1) <= ALONE
        if isinstance(self.law, BiMix):
            for loss in np.flatnonzero(losses):
                if (own := self.table.own(int(loss))) is not None:
                    rows &= self.table.mixtures[:, own] > 0
        return rows

    def expected(self, mixtures: Floats) -> Floats:
        """(m,) the target's expected losses at the end of training."""
        points = Points.at(mixtures, self.table.last_step)
        total = np.zeros(len(mixtures))
        for weight, fitted in zip(self.counted, self.fitted, strict=True):
            if weight > 0 and fitted is not None:
                total += weight * fitted.predict(points)
        return total

    def _gradient(self, mixture: Floats) -> Floats:
        step = self.table.last_step
        parts = [
            weight * fitted.gradient(mixture, step)
            for weight, fitted in zip(self.counted, self.fitted, strict=True)
            if weight > 0 and fitted is not None
        ]
        return np.asarray(np.sum(parts, axis=0))

    def _search(self) -> tuple[Optimum, Floats]:
        """The proposal and the worst of many draws."""
        searched = self.law.convex or isinstance(self.law, GaussianProcess)
        sample = draws(self.prior, self.most, self.settings.seed, CHUNK if searched else DRAWS)
        simulated, worst = simulate(self.expected, sample)
        if isinstance(self.law, MixMin) and not self.pull:
            descended = descend(self._gradient, len(self.prior))
            best = project(descended[None], self.most)[0]
            return Optimum(best, duality_gap(best, self._gradient(best), self.most)), worst
        if self.law.convex:
            exact = minimise(self.expected, self._gradient, self.prior, self.most, self.pull)
            return exact, worst
        if isinstance(self.law, GaussianProcess):
            tried = project(self.table.mixtures, self.most)
            start, seed = tried[self.expected(tried).argmin()], self.settings.seed
            best = search_around(start, self.expected, seed, lambda rows: project(rows, self.most))
            return Optimum(best, None), worst
        return Optimum(simulated, None), worst

    def _interactions(self) -> dict[str, list[float]]:
        """How each loss changes when a tenth of the weight moves from the prior to a domain."""
        moved = (1 - MOVED) * self.prior + MOVED * np.eye(len(self.prior))
        points = Points.at(np.concatenate([self.prior[None], moved]), self.table.last_step)
        table = {}
        for name, fitted in zip(self.table.names, self.fitted, strict=True):
            if fitted is not None:
                losses = fitted.predict(points)
                table[name] = (losses[1:] - losses[0]).tolist()
        return table

    def _short(self, weights: Floats) -> Floats:
        """Four decimals, where the limits allow that."""
        short = rounded(weights[None])[0]
        inside = self.within is None or self.within.violation(short) <= 1e-9
        return short if inside and (short <= self.most + 1e-9).all() else weights

    def _check_limits(self) -> None:
        assert self.within is not None
        try:
            self.within.project(np.full(len(self.most), 1 / len(self.most)), "euclidean")
        except ArithmeticError as error:
            raise UserError(
                "no mixture keeps the recipe's limits together with --at-most, --tokens and "
                "--epochs: change one of them"
            ) from error

    def _allowed(self, best: Optimum) -> Optimum:
        """The nearest mixture that keeps the recipe's limits; how much it misses is not known."""
        if self.within is None or self.within.violation(best.weights) <= 1e-9:
            return best
        return Optimum(self.within.project(best.weights, self.distance), None)

    def _mixture(self, weights: Floats) -> Mixture:
        named = dict(zip(self.table.domains, map(float, weights), strict=True))
        return Mixture(named, float(self.expected(weights[None])[0]))

    def _best_tried(self) -> Mixture:
        """The tried mixture of the lowest mean measured loss, within the limits if one is."""
        table, ends = self.table, self.table.at_end
        kept = [self.within is None or self.within.violation(row) <= 1e-6 for row in table.mixtures]
        within = ends & (table.mixtures <= self.most + 1e-6).all(axis=1) & np.array(kept)
        rows = within if within.any() else ends
        groups, losses = table.groups[rows], (table.losses @ self.counted)[rows]
        counts = np.bincount(groups)
        means = np.where(counts > 0, np.bincount(groups, losses) / np.maximum(counts, 1), np.inf)
        row = int(np.flatnonzero(rows & (table.groups == means.argmin()))[0])
        weights = dict(zip(table.domains, table.mixtures[row].tolist(), strict=True))
        return Mixture(weights, float(means.min()))

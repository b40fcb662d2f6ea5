"""What a mixing law is: fitted to one loss, it predicts it for any mixture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from dograph.experiments.laws.table import Floats, MixtureTable, Points


class FittedLaw(ABC):
    """A law with its parameters, of one loss."""

    @abstractmethod
    def predict(self, points: Points) -> Floats:
        """(n,) expected losses."""

    def gradient(self, mixture: Floats, step: float) -> Floats:
        """(S,) derivative of the loss by each weight; convex laws have it."""
        raise NotImplementedError

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """The parameters as plain numbers and texts."""


class Law(ABC):
    """A form of law, fitted to every loss of a table for itself.

    Attributes:
        name: as on the command line.
        knows_steps: whether it tells the times of one run apart; the others read ends alone.
        convex: whether its losses are convex in the weights, so that the best mixture is exact.
        pull: published weight of the divergence from the prior in the search, in nats.
        note: what differs from the publication; empty for nothing.
    """

    name: str
    knows_steps: bool = False
    convex: bool = False
    pull: float = 0.0
    note: str = ""

    @abstractmethod
    def parameters(self, domains: int, several_steps: bool) -> int:
        """Numbers that the fit chooses, so that fewer mixtures are refused."""

    def fit_loss(
        self,
        table: MixtureTable,
        loss: int,
        rows: Any = slice(None),
        whole: FittedLaw | None = None,
    ) -> FittedLaw:
        """Fit one loss of a table.

        Args:
            table: mixtures and losses.
            loss: place of the loss.
            rows: (n,) mask of those that are fitted to.
            whole: the fit to all rows, for one to a part of them to begin from.
        """
        own = table.own(loss)
        return self.fit(table.points.take(rows), table.losses[rows, loss], own, whole)

    def fit(
        self, points: Points, losses: Floats, own: int | None, whole: FittedLaw | None = None
    ) -> FittedLaw:
        """Fit one loss; laws of mixtures and mean losses alone have it.

        Args:
            points: n mixtures and steps.
            losses: (n,) in nats.
            own: place of the domain whose loss it is; None for another loss.
            whole: the fit to all rows, for one to a part of them to begin from.
        """
        raise NotImplementedError

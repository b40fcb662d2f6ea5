"""Mixtures that do not change while training runs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dograph.errors import check_range
from dograph.mixers.base import BaseMixer
from dograph.mixers.simplex import weights_by_name


class Stratified(BaseMixer):
    """Every domain equally often: the paper's *uniform*, and every table's baseline."""

    def __init__(self) -> None:
        super().__init__()


class Proportional(BaseMixer):
    """Every domain by its share of the training tokens, ``α_s = n_s / Σ n``."""

    def __init__(self) -> None:
        super().__init__()

    def initial_weights(self) -> Tensor:
        """(S,) shares of the training tokens."""
        tokens = torch.tensor(self.domain_tokens, dtype=torch.float64)
        return tokens / tokens.sum()


class Temperature(BaseMixer):
    """Between proportional and uniform, ``α_s ∝ n_s^(1/τ)``.

    Args:
        temperature: τ > 0; 1 is proportional, large values tend to uniform.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        check_range("mixer.init_args.temperature", temperature, above=0)
        self.temperature = temperature

    def initial_weights(self) -> Tensor:
        """(S,) token counts to the power 1/τ, normalised in log space."""
        tokens = torch.tensor(self.domain_tokens, dtype=torch.float64)
        return torch.softmax(tokens.log() / self.temperature, dim=0)


class Fixed(BaseMixer):
    """A mixture that the user names.

    Args:
        weights: a number ≥ 0 for every domain by name; normalised to sum 1. A level's name
            (``web`` of ``web/news``) stands for all below it, which share its weight by their
            tokens. Unseen domains may be left out.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.named_weights = dict(weights)

    def initial_weights(self) -> Tensor:
        """(S,) the named weights in the corpus's order."""
        named = self.named_weights, self.domains, "weights", self.unseen, self.domain_tokens
        return weights_by_name(*named)

"""UniMax: as even as a cap on epochs allows (Chung et al. 2023, arXiv 2304.09151)."""

from __future__ import annotations

import torch
from torch import Tensor

from dograph.errors import UserError, check_range
from dograph.mixers.base import BaseMixer


def shared_budget(tokens: Tensor, budget: float, max_epochs: float) -> Tensor:
    """Share out a token budget evenly, no domain more than its cap (UniMax's Algorithm 1).

    From the smallest domain to the largest, each gets ``min(B / m, N n_s)``, where B is what is
    left of the budget and m the number of domains that have no share yet.

    Args:
        tokens: (S,) n ≥ 0, tokens of each domain.
        budget: tokens to share out, at most ``N Σ n_s``.
        max_epochs: N > 0.

    Returns:
        (S,) float64 tokens, of sum ``budget``.

    >>> shared_budget(torch.tensor([10, 100, 1000]), 300, 2).tolist()
    [20.0, 140.0, 140.0]
    """
    shares, left = torch.zeros(len(tokens), dtype=torch.float64), float(budget)
    order = tokens.argsort(stable=True).tolist()
    for place, index in enumerate(order):
        shares[index] = min(left / (len(order) - place), max_epochs * tokens[index].item())
        left -= shares[index].item()
    return shares


class UniMax(BaseMixer):
    """Draws every domain equally often, except those that would repeat more than a cap allows.

    ``shared_budget`` of the tokens that the run reads (``token_budget``) over the domains that are
    trained on; the weights stand for the whole run. The paper counts characters of languages. Where
    all caps together hold fewer tokens than the run reads, its algorithm draws by size and breaks
    every cap; here that is an error.

    Args:
        max_epochs: N > 0, the most passes over a domain; 1 is the paper's choice for umT5.
    """

    def __init__(self, max_epochs: float = 1.0) -> None:
        super().__init__()
        check_range("mixer.init_args.max_epochs", max_epochs, above=0)
        self.max_epochs = max_epochs

    def initial_weights(self) -> Tensor:
        """(S,) shares of the run's tokens; UserError if it has no known length, or a too long."""
        if not self.token_budget:
            raise UserError(
                "UniMax shares out the tokens of the whole run, whose length is not known: set "
                "trainer.max_steps, or give setup `token_budget`"
            )
        tokens = torch.tensor(self.domain_tokens) * self.trained
        most = self.max_epochs * tokens.sum().item()
        if self.token_budget > most:
            raise UserError(
                f"mixer.init_args.max_epochs is {self.max_epochs:g}, which lets a run read "
                f"{most:,.0f} tokens, but this run reads {self.token_budget:,}: raise it, lower "
                "trainer.max_steps, or add text"
            )
        shares = torch.zeros(len(tokens), dtype=torch.float64)
        trained = tokens[self.trained]
        shares[self.trained] = shared_budget(trained, self.token_budget, self.max_epochs)
        return shares / shares.sum()

"""A mixer of your own: what it learns from a batch, and what to draw next."""

import torch

from dograph.mixers import BaseMixer


class LossSeeker(BaseMixer):
    """Draws more of what is hard: α ∝ exp(sharpness · mean loss).

    Args:
        sharpness: 0 draws evenly; the larger, the more of the hardest domain.
    """

    def __init__(self, sharpness: float = 1.0):
        super().__init__(update_every=20, floor=0.1)
        self.sharpness = sharpness

    def update(self, signals):
        """(S,) what to draw next, one share for each domain; dograph normalises it."""
        return torch.softmax(self.sharpness * signals.domain_loss, dim=0)

"""Gradients at the token embeddings: how each token of each sequence is asked to change.

They come with training's own backward: a sequence's gradient by the output of the embedding layer,
one vector a token. Summed by token they are the gradient of the embedding matrix, row by row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dograph.errors import UserError
from dograph.signals.projections import gaussian


class EmbeddingReader:
    """Reads every sequence's gradient at the output of a model's embedding layer.

    The gradients are projected to ``rank`` numbers a token by one Gaussian matrix of variance
    1/rank, so that inner products keep their expectation; narrower embeddings stay as they are.
    Training is not touched: no ``.grad``, no random state.

        reader.record()
        losses = ...  # (B,) of one call of the model
        reader.arm()
        losses.mean().backward()
        tokens, gradients = reader.take()

    Args:
        network: a causal language model of transformers.
        rank: numbers a token, ≥ 1.
        seed: of the projection.
    """

    def __init__(self, network: nn.Module, rank: int, seed: int = 0) -> None:
        embedding: nn.Module = network.get_input_embeddings()  # type: ignore[operator]
        self.rank, self.seed = rank, seed
        self._projection: Tensor | None = None
        self._recording = self._armed = False
        self._tokens: Tensor | None = None
        self._output: Tensor | None = None
        self._gradient: Tensor | None = None
        self._hook = embedding.register_forward_hook(self._looked_up, with_kwargs=True)

    def record(self) -> None:
        """Records the next call of the embedding layer; forgets the last."""
        self._recording, self._armed = True, False
        self._tokens = self._output = self._gradient = None

    @property
    def recorded(self) -> bool:
        """Whether a call of the embedding layer is recorded, and not yet taken."""
        return self._output is not None

    def arm(self) -> None:
        """Reads the coming backward; earlier ones are ignored."""
        self._armed = True

    def take(self) -> tuple[Tensor, Tensor]:
        """(B, T) tokens and (B, T, r) float32 gradients of what was differentiated."""
        tokens, gradient = self._tokens, self._gradient
        self._recording, self._tokens, self._output, self._gradient = False, None, None, None
        if tokens is None or gradient is None:
            raise UserError("no gradient came to the model's embeddings: they have no part in it")
        return tokens, gradient

    def differentiate(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """The same for (B,) losses, by a backward of their own down to the embeddings."""
        if self._output is None:
            raise UserError("nothing was recorded: call `record()`, then the model")
        (gradient,) = torch.autograd.grad(losses.sum(), self._output)
        self._gradient = self._project(gradient)
        return self.take()

    def read_now(self, loss: Tensor) -> None:
        """Reads the gradient of a scalar at once, by a backward of its own; the graph stays."""
        assert self._output is not None
        (gradient,) = torch.autograd.grad(loss, self._output, retain_graph=True)
        self._gradient = self._project(gradient)

    def detach(self) -> None:
        """Removes the hook from the model."""
        self._hook.remove()

    def _looked_up(
        self, _: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Tensor
    ) -> None:
        if not self._recording or not torch.is_grad_enabled():
            return
        self._recording = False
        self._tokens = (inputs[0] if inputs else options["input"]).detach()
        if not output.requires_grad:  # of embeddings that are not trained
            output.requires_grad_()
        self._output = output
        output.register_hook(self._arrived)

    def _arrived(self, gradient: Tensor) -> None:
        if self._armed:
            self._armed = False
            self._gradient = self._project(gradient)

    def _project(self, gradient: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            exact = gradient.detach().float()
            width = exact.shape[-1]
            if width <= self.rank:
                return exact
            if self._projection is None or self._projection.device != exact.device:
                self._projection = gaussian(width, self.rank, self.seed).to(exact.device)
            return exact @ self._projection

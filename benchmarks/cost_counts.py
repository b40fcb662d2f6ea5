"""What a training step counts, by architecture: parameters, FLOPs and bytes, without a clock.

Matrix products alone, two FLOPs a multiplication with its addition; attention counts all T² pairs
as ``dograph.reports.cost`` and PaLM (arXiv 2204.02311, appendix B) do.
"""

from __future__ import annotations

from dataclasses import dataclass

RANK = 16
"""r of ``SketchSettings``, its default."""
HALF, SINGLE = 2, 4
"""Bytes of a bfloat16 and of a float32."""


@dataclass(frozen=True)
class Architecture:
    """A decoder's sizes.

    Attributes:
        name: as the tables print it.
        layers: L.
        width: d.
        vocabulary: V, rows of the output layer.
        context: T, tokens a sequence.
        first: (n_in, n_out) of the matrices that read a block's input: queries, keys, values.
        rest: of the block's other matrices, in the order of the forward pass.
        block_vectors: numbers a block has in biases and norms.
        outer: all other parameters, an output layer that is tied to the embedding not again.
        sequences: that one GPU takes a step, chosen to fit 80 GB.
    """

    name: str
    layers: int
    width: int
    vocabulary: int
    context: int
    first: tuple[tuple[int, int], ...]
    rest: tuple[tuple[int, int], ...]
    block_vectors: int
    outer: int
    sequences: int = 1

    @property
    def block(self) -> tuple[tuple[int, int], ...]:
        """(n_in, n_out) of all matrices of a block."""
        return self.first + self.rest

    @property
    def parameters(self) -> int:
        """N, embeddings included."""
        return self.layers * (entries(self.block) + self.block_vectors) + self.outer


def gpt2(
    name: str, layers: int, width: int, sequences: int, vocabulary: int = 50257, context: int = 1024
) -> Architecture:
    """GPT-2 (Radford et al. 2019): four matrices a block with biases, a tied output layer."""
    return Architecture(
        name=name,
        layers=layers,
        width=width,
        vocabulary=vocabulary,
        context=context,
        first=((width, 3 * width),),
        rest=((width, width), (width, 4 * width), (4 * width, width)),
        block_vectors=13 * width,
        outer=(vocabulary + context + 2) * width,
        sequences=sequences,
    )


def llama(
    name: str,
    layers: int,
    width: int,
    hidden: int,
    sequences: int,
    vocabulary: int = 32000,
    context: int = 4096,
) -> Architecture:
    """Llama (Touvron et al. 2023): seven matrices a block, no biases, its own output layer."""
    square, up, down = (width, width), (width, hidden), (hidden, width)
    return Architecture(
        name=name,
        layers=layers,
        width=width,
        vocabulary=vocabulary,
        context=context,
        first=(square, square, square),
        rest=(square, up, up, down),
        block_vectors=2 * width,
        outer=(2 * vocabulary + 1) * width,
        sequences=sequences,
    )


MODELS = (
    gpt2("GPT-2 small", 12, 768, sequences=16),
    gpt2("GPT-2 medium", 24, 1024, sequences=16),
    gpt2("GPT-2 large", 36, 1280, sequences=8),
    gpt2("GPT-2 XL", 48, 1600, sequences=8),
    llama("Llama-2 7B", 32, 4096, 11008, sequences=2),
)
"""Sizes from the models' papers: Radford et al. 2019, table 2; arXiv 2307.09288."""


def entries(matrices: tuple[tuple[int, int], ...]) -> int:
    """Numbers that matrices hold."""
    return sum(n_in * n_out for n_in, n_out in matrices)


def forward_flops(model: Architecture) -> int:
    """FLOPs a token of a forward pass, ``2 (L·n_block + V d) + 4 L T d``."""
    products = model.layers * entries(model.block) + model.vocabulary * model.width
    return 2 * products + 4 * model.layers * model.context * model.width


def training_flops(model: Architecture) -> int:
    """FLOPs a token of forward and backward; a backward takes two products for each one."""
    return 3 * forward_flops(model)


def partial_backward_flops(model: Architecture, blocks: int = 1) -> int:
    """FLOPs a token from the losses down to the observed outputs, without weights' gradients.

    This is what the plain two-pass way pays twice. The matrices that read the first observed
    block's input are not passed.

    Args:
        model: its sizes.
        blocks: observed, counted from the last: 1, or L for all.
    """
    passed = model.vocabulary * model.width + entries(model.rest)
    passed += (blocks - 1) * entries(model.block)
    return 2 * passed + 8 * blocks * model.context * model.width


def logit_bytes(model: Architecture, half: bool = True) -> int:
    """Bytes a token that the loss's backward moves, over and above products.

    The loss's gradient is written and read as float32, log-softmax read and its gradient written;
    under autocast that is read once more and written in bfloat16.
    """
    return model.vocabulary * (4 * SINGLE + (SINGLE + HALF if half else 0))


def projection_flops(model: Architecture, blocks: int = 1, rank: int = RANK) -> int:
    """FLOPs a token of projecting inputs and output gradients to rank r, and of their products.

    A side of at most r features is kept as it is.
    """
    flops = 0
    for sides in model.block:
        kept = [min(side, rank) for side in sides]
        flops += sum(2 * side * rank for side in sides if side > rank) + 2 * kept[0] * kept[1]
    return blocks * flops


def projection_bytes(model: Architecture, blocks: int = 1) -> int:
    """Bytes a token that projections move: read in bfloat16, written and read as float32."""
    return blocks * sum(sum(sides) for sides in model.block) * (HALF + 2 * SINGLE)


def sketch_numbers(model: Architecture, blocks: int = 1, rank: int = RANK) -> int:
    """k, numbers in a sequence's sketch."""
    sides = [(min(n_in, rank), min(n_out, rank)) for n_in, n_out in model.block]
    return blocks * entries(tuple(sides))


def record_bytes(model: Architecture, blocks: int = 1, number: int = HALF) -> int:
    """Bytes a token of output gradients, all alive at once while a sketch is made.

    Inputs cost nothing: the backward keeps them anyway.
    """
    return number * blocks * sum(n_out for _, n_out in model.block)


def held_bytes(model: Architecture) -> int:
    """Bytes a token that one backward holds above the cut until the weights are known.

    Output gradients of the last block and of the output layer, whose weights' gradients wait.
    """
    return record_bytes(model) + HALF * model.vocabulary


def checkpoint_bytes(model: Architecture) -> int:
    """Parameters and AdamW's two moments in float32; sampler and mixer add megabytes at most."""
    return 3 * SINGLE * model.parameters


def window_bytes(sequences: int, numbers: int) -> int:
    """A schedule's window of (n, k) sketches in bfloat16 with their domains in int64."""
    return sequences * (HALF * numbers + 8)


def domain_gradient_bytes(model: Architecture, domains: int) -> int:
    """Exact DoGE's S × P numbers in float32."""
    return SINGLE * domains * model.parameters

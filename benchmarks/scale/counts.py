"""What a training step computes and holds: parameters, FLOPs and bytes of a decoder.

Only matrix products count, two FLOPs for each multiplication and addition; attention counts all T²
pairs, as ``dograph.reports.cost`` and PaLM (arXiv 2204.02311, appendix B) do.
"""

from __future__ import annotations

from dataclasses import dataclass

RANK = 16
"""r, the default of ``SketchSettings``."""
TOKEN_RANK = 64
"""Numbers that the schedule keeps of a token's gradient."""
HALF, SINGLE = 2, 4
"""Bytes of a bfloat16 and of a float32 number."""
Matrices = tuple[tuple[int, int], ...]
"""(n_in, n_out) of each matrix."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of a decoder.

    Attributes:
        name: name in the tables.
        layers: L.
        width: d.
        vocabulary: V, rows of the output layer.
        context: T, tokens in a sequence.
        first: the matrices that read a block's input: queries, keys, values.
        rest: the block's other matrices, in the order of the forward pass.
        block_vectors: numbers in a block's biases and norms.
        outer: parameters outside the blocks; a tied output layer is counted once.
        sequences: sequences in one GPU's share of a step, chosen to fit 80 GB.
    """

    name: str
    layers: int
    width: int
    vocabulary: int
    context: int
    first: Matrices
    rest: Matrices
    block_vectors: int
    outer: int
    sequences: int = 1

    @property
    def block(self) -> Matrices:
        """All matrices of a block."""
        return self.first + self.rest

    @property
    def parameters(self) -> int:
        """N, embeddings included."""
        return self.layers * (entries(self.block) + self.block_vectors) + self.outer


def gpt2(
    name: str, layers: int, width: int, sequences: int, vocabulary: int = 50257, context: int = 1024
) -> Architecture:
    """GPT-2 (Radford et al. 2019): four matrices with biases in a block, a tied output layer."""
    first = ((width, 3 * width),)
    rest = ((width, width), (width, 4 * width), (4 * width, width))
    outer = (vocabulary + context + 2) * width
    vectors = 13 * width
    return Architecture(
        name, layers, width, vocabulary, context, first, rest, vectors, outer, sequences
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
    """Llama (Touvron et al. 2023): seven matrices without biases, an output layer of its own."""
    square, up, down = (width, width), (width, hidden), (hidden, width)
    first, rest = (square, square, square), (square, up, up, down)
    outer = (2 * vocabulary + 1) * width
    vectors = 2 * width
    return Architecture(
        name, layers, width, vocabulary, context, first, rest, vectors, outer, sequences
    )


MODELS = (
    gpt2("GPT-2 small", 12, 768, sequences=16),
    gpt2("GPT-2 medium", 24, 1024, sequences=16),
    gpt2("GPT-2 large", 36, 1280, sequences=8),
    gpt2("GPT-2 XL", 48, 1600, sequences=8),
    llama("Llama-2 7B", 32, 4096, 11008, sequences=2),
)
"""Sizes from Radford et al. 2019, table 2, and arXiv 2307.09288."""


def entries(matrices: Matrices) -> int:
    """Count the numbers in matrices."""
    return sum(n_in * n_out for n_in, n_out in matrices)


def forward_flops(model: Architecture) -> int:
    """FLOPs a token of a forward pass, ``2 (L·n_block + V d) + 4 L T d``."""
    products = model.layers * entries(model.block) + model.vocabulary * model.width
    return 2 * products + 4 * model.layers * model.context * model.width


def training_flops(model: Architecture) -> int:
    """FLOPs a token of forward and backward; the backward has two products for each one."""
    return 3 * forward_flops(model)


def partial_backward_flops(model: Architecture, blocks: int = 1) -> int:
    """FLOPs a token from the losses down to the observed outputs, without weights' gradients.

    Args:
        model: its sizes.
        blocks: number of observed blocks, counted from the last: 1 or L.
    """
    passed = model.vocabulary * model.width + entries(model.rest)
    passed += (blocks - 1) * entries(model.block)
    return 2 * passed + 8 * blocks * model.context * model.width


def logit_bytes(model: Architecture) -> int:
    """Bytes a token that the loss's backward moves besides its products, 22 V.

    It writes and reads the loss's gradient as float32, reads log-softmax and writes its gradient,
    which autocast reads once more and writes in bfloat16.
    """
    return model.vocabulary * (5 * SINGLE + HALF)


def projection_flops(model: Architecture, blocks: int = 1) -> int:
    """FLOPs a token to project inputs and output gradients to rank r, and of their products."""
    sides = sum(n_in + n_out for n_in, n_out in model.block)
    return blocks * (2 * RANK * sides + 2 * RANK**2 * len(model.block))


def projection_bytes(model: Architecture) -> int:
    """Bytes a token moved by projections: read in bfloat16, written and read as float32."""
    return sum(sum(sides) for sides in model.block) * (HALF + 2 * SINGLE)


def sketch_numbers(model: Architecture) -> int:
    """k, numbers in the sketch of a sequence by its last block."""
    return len(model.block) * RANK**2


def gradient_bytes(model: Architecture, number: int = HALF) -> int:
    """Bytes a token of the last block's output gradients, all alive while a sketch is made."""
    return number * sum(n_out for _, n_out in model.block)


def probe_flops(model: Architecture) -> int:
    """FLOPs a token of a forward and a backward to the embeddings, without weights' gradients."""
    return 2 * forward_flops(model) + 4 * model.layers * model.context * model.width


def token_projection_flops(model: Architecture) -> int:
    """FLOPs a token to project the gradient at its embedding."""
    return 2 * model.width * TOKEN_RANK


def token_projection_bytes(model: Architecture) -> int:
    """Bytes a token of that: read in bfloat16, written and read as float32."""
    return model.width * (HALF + 2 * SINGLE)


def token_gradient_bytes() -> int:
    """Bytes of a token's projected gradient and of its id (int64), which are gathered."""
    return TOKEN_RANK * SINGLE + 8


def domain_mean_bytes(model: Architecture, domains: int) -> int:
    """Bytes of the domains' mean gradients at V embeddings, in two halves."""
    return 2 * domains * model.vocabulary * TOKEN_RANK * SINGLE


def checkpoint_bytes(model: Architecture) -> int:
    """Bytes of parameters and AdamW's two moments in float32."""
    return 3 * SINGLE * model.parameters

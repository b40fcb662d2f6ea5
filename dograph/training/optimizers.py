"""The optimiser of a run and the schedule of its learning rate."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dograph.errors import UserError, check_range, check_whole, nearest

logger = logging.getLogger(__name__)
NO_END = 2**40
"""More steps than a run has: a ``DataMixer`` serves ``sys.maxsize`` batches."""
OF_MODEL = {
    "params": "it is the model's parameters",
    "lr": "set model.learning_rate",
    "weight_decay": "set model.weight_decay",
    "betas": "set model.betas",
}
"""Arguments of an optimiser that other keys give, and which."""
WITHOUT_STEPS = ("LBFGS", "SparseAdam")
"""Optimisers of torch that need other steps, or other gradients."""


def check_schedule(
    learning_rate: float,
    final_learning_rate: float,
    warmup: int,
    weight_decay: float,
    betas: tuple[float, float],
) -> None:
    """Refuses settings of the optimiser and its schedule that are out of range or not finite."""
    check_range("model.learning_rate", learning_rate, above=0, below=math.inf)
    check_range("model.final_learning_rate", final_learning_rate, at_least=0, below=math.inf)
    if final_learning_rate > learning_rate:
        raise UserError(
            f"model.final_learning_rate is {final_learning_rate}, above model.learning_rate "
            f"{learning_rate}, so that the rate would rise to the end: set it to at most that"
        )
    check_whole("model.warmup", warmup, at_least=0)
    check_range("model.weight_decay", weight_decay, at_least=0, below=math.inf)
    for beta in betas:
        check_range("model.betas", beta, at_least=0, below=1)


def check_end(steps: float, max_steps: int) -> None:
    """Raises UserError for batches without end, of which ``steps`` can be made."""
    if not 1 <= steps < NO_END:
        raise UserError(
            f"Trainer(max_steps={max_steps}): these batches have no end, and the learning rate's "
            "schedule needs one: set max_steps ≥ 1"
        )


def warmup_cosine(step: int, *, warmup: int, total: int, final: float) -> float:
    """Learning-rate factor after ``step`` of ``total`` steps.

    Linear in the first ``warmup`` steps, then a cosine from 1 to ``final``, in [0, 1].
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def check_optimizer(optimizer: Mapping[str, Any] | None) -> None:
    """Raises UserError unless ``model.optimizer`` names a class of torch.optim and its arguments.

    Tries them on one small matrix.
    """
    if optimizer is None:
        return
    kind, arguments = _class_and_arguments(optimizer)
    matrix = nn.Parameter(torch.zeros(2, 2))
    try:
        kind([matrix], lr=1e-3, **arguments)
    except Exception as error:  # whatever the class makes of them
        raise UserError(f"model.optimizer.init_args: {kind.__name__}: {error}") from error


def build_optimizer(
    network: Any,
    optimizer: Mapping[str, Any] | None,
    learning_rate: float,
    weight_decays: tuple[float, float],
    betas: tuple[float, float],
    fused: bool,
) -> Optimizer:
    """The optimiser of a network's trainable parameters.

    Args:
        network: a causal language model of transformers.
        optimizer: ``class_path`` in torch.optim and ``init_args``. None: AdamW.
        learning_rate: of all parameters.
        weight_decays: of matrices (two or more dimensions), and of vectors; for optimisers
            that have one.
        betas: for optimisers that have them.
        fused: whether AdamW may be fused, where no class is named.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if any(parameter.dtype == torch.float16 for parameter in parameters):
        logger.warning(
            "trainer.precision is 16-true, in which AdamW's squares of small gradients are 0, "
            "so that their steps are far too large: set it to bf16-true or 16-mixed"
        )
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    if optimizer is None:
        kind: Callable[..., Optimizer] = torch.optim.AdamW
        arguments: dict[str, Any] = {"fused": fused}
    else:
        kind, arguments = _class_and_arguments(optimizer)
    groups = _groups((matrices, vectors), weight_decays)
    if kind is getattr(torch.optim, "Muon", None):
        hidden = _hidden_matrices(network, matrices)
        rest = [parameter for parameter in matrices if all(parameter is not h for h in hidden)]
        adamw = torch.optim.AdamW(
            _groups((rest, vectors), weight_decays), lr=learning_rate, betas=betas
        )
        # Steps as long as AdamW's, so that one learning rate serves both.
        own = {"adjust_lr_fn": "match_rms_adamw"} | arguments
        return MuonAndAdamW(
            kind(hidden, lr=learning_rate, weight_decay=weight_decays[0], **own), adamw
        )
    known = inspect.signature(kind).parameters
    if "weight_decay" not in known:
        groups = [{"params": group["params"]} for group in groups]
    if "betas" in known:
        arguments = {"betas": betas} | arguments
    return kind(groups, lr=learning_rate, **arguments)


class MuonAndAdamW(Optimizer):
    """Muon for the matrices of the Transformer blocks, AdamW for all other parameters.

    As Muon's authors use it; its orthogonal steps are not made for embeddings and vectors.
    """

    def __init__(self, muon: Optimizer, adamw: Optimizer) -> None:
        self.parts = (muon, adamw)
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Has both parts work on this optimiser's groups and state."""
        muon, adamw = self.parts
        count = len(muon.param_groups)
        muon.param_groups, adamw.param_groups = self.param_groups[:count], self.param_groups[count:]
        muon.state = adamw.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of both."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for part in self.parts:
            part.step()
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores both."""
        super().load_state_dict(state_dict)
        self._share()


def _groups(
    parameters: Sequence[Sequence[Tensor]], weight_decays: Sequence[float]
) -> list[dict[str, Any]]:
    return [
        {"params": list(each), "weight_decay": decay}
        for each, decay in zip(parameters, weight_decays, strict=True)
    ]


def _hidden_matrices(network: Any, matrices: Sequence[Tensor]) -> list[Tensor]:
    """The two-dimensional matrices that are neither the embedding nor the output layer."""
    ends = [network.get_input_embeddings(), network.get_output_embeddings()]
    outer = {id(parameter) for end in ends if end is not None for parameter in end.parameters()}
    embeddings = (each for each in network.modules() if isinstance(each, nn.Embedding))
    outer |= {id(parameter) for each in embeddings for parameter in each.parameters()}
    return [each for each in matrices if each.dim() == 2 and id(each) not in outer]


def _class_and_arguments(
    optimizer: Mapping[str, Any],
) -> tuple[Callable[..., Optimizer], dict[str, Any]]:
    """A class of torch.optim, and what a recipe gives it."""
    example = "write {class_path: torch.optim.SGD, init_args: {momentum: 0.9}}"
    for key in optimizer:
        if key not in ("class_path", "init_args"):
            raise UserError(f"model.optimizer has no key {str(key)!r}: {example}")
    path, arguments = str(optimizer.get("class_path")), optimizer.get("init_args") or {}
    module, _, name = path.rpartition(".")
    kinds = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    for name_of in WITHOUT_STEPS:
        kinds.pop(name_of, None)
    if module != "torch.optim" or name not in kinds:
        among = nearest(name, list(kinds)) or f" (there are: {', '.join(sorted(kinds))})"
        raise UserError(
            f"model.optimizer.class_path is {path!r}: name an optimiser of torch.optim{among}"
        )
    if not isinstance(arguments, Mapping):
        raise UserError(f"model.optimizer.init_args is {arguments!r}: {example}")
    for key, remedy in OF_MODEL.items():
        if key in arguments:
            raise UserError(f"model.optimizer.init_args.{key} is given elsewhere: {remedy}")
    return kinds[name], dict(arguments)

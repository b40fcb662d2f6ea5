"""Causal language models of transformers, built from a checked configuration."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from dograph.errors import UserError
from dograph.training.cross_entropy import token_losses

logger = logging.getLogger(__name__)

MOST_LAYERS = 10_000
"""Maximum layer count; catches typos before a network is built for hours."""
PROBED = 8
"""Tokens on which a network's causality is tried."""
POSITIONS_BY_PADDING = frozenset(
    {
        *("camembert", "data2vec-text", "roberta", "roberta-prelayernorm"),
        *("xlm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    }
)
"""Model types that count positions from the padding token, so that their configuration needs it."""
NOT_OF_THE_NETWORK = frozenset(
    {
        *("model_type", "transformers_version", "architectures", "dtype"),
        *("_name_or_path", "id2label", "label2id"),
    }
)
"""Keys of a configuration that do not say what a network computes."""
_LAYERS = re.compile(r"layer|block|depth|attention_types", re.IGNORECASE)


def configuration(architecture: str, pretrained: str | None = None) -> PretrainedConfig:
    """The default configuration of a model type, or a pretrained model's own."""
    try:
        if pretrained is not None:
            return AutoConfig.from_pretrained(pretrained, trust_remote_code=False)
        return AutoConfig.for_model(architecture)
    except (ValueError, OSError) as error:
        name = "architecture" if pretrained is None else "pretrained"
        raise UserError(f"model.{name} {pretrained or architecture!r}: {error}") from error


def takes(architecture: str, key: str) -> bool:
    """Whether a model type's configuration has a key, under its own or transformers' name."""
    settings = configuration(architecture)
    return key in settings.to_dict() or key in settings.attribute_map


def own_name(architecture: str, key: str) -> str:
    """The name by which a model type's configuration stores a key, e.g. gpt2's ``n_positions``."""
    return configuration(architecture).attribute_map.get(key, key)


def build_network(
    architecture: str,
    config: dict[str, Any],
    pretrained: str | None = None,
    attention: str | None = None,
) -> nn.Module:
    """A transformers causal language model from a configuration, or pretrained.

    Weights are float32, whatever type a pretrained model is stored in: the trainer's precision
    says in which they train. Every row of the token embedding is trained, none is padding.
    """
    settings = network_settings(architecture, config, pretrained)
    chosen: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    try:
        if pretrained is not None:
            both: Any = AutoModelForCausalLM.from_pretrained(
                pretrained,
                config=settings,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **chosen,
            )
            network, loaded = both
            _check_loaded(pretrained, loaded)
            network.train()  # transformers gives it without dropout
        else:
            network = AutoModelForCausalLM.from_config(settings, **chosen)
        _train_every_row(network)
        built: nn.Module = network
        return built
    except UserError:
        raise
    except Exception as error:  # whatever transformers makes of it: the configuration is at fault
        if attention is not None:
            raise UserError(
                f"model.attention is {attention!r}: {settings.model_type} refuses it, or "
                f"model.config: {error}"
            ) from error
        raise _refused(settings.model_type, config, error) from error


def network_settings(
    architecture: str, config: Mapping[str, Any], pretrained: str | None = None
) -> PretrainedConfig:
    """The checked configuration that ``build_network`` builds.

    Dropout is 0 unless ``config`` sets it: gradients that are compared must not be noisy.
    GPT-2's GELU (by tanh) is computed by one fused kernel, equal to rounding, in place of the eight
    operations of transformers' ``gelu_new``: at nano scale these take a fifth of a step.
    """
    settings = configuration(architecture, pretrained)
    kind = settings.model_type
    names = set(settings.to_dict()) | set(settings.attribute_map)
    unknown = sorted(str(key) for key in config if key not in names)
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(f"model.config has no key {unknown[0]!r} for {kind}{hint}")
    if config.get("dtype") not in (None, "float32"):
        raise UserError(
            f"model.config.dtype is {config['dtype']}: leave it out, and set trainer.precision"
        )
    _check_sizes(config, settings)
    defaults: dict[str, Any] = {name: 0.0 for name in names if name.endswith(("pdrop", "dropout"))}
    if getattr(settings, "activation_function", None) == "gelu_new":
        defaults["activation_function"] = "gelu_pytorch_tanh"
    if "pad_token_id" in names and kind not in POSITIONS_BY_PADDING:
        defaults["pad_token_id"] = None
    try:
        if pretrained is None:
            return AutoConfig.for_model(architecture, **{**defaults, **config})
        settings.update({**defaults, **config})
    except Exception as error:
        raise _refused(kind, config, error) from error
    _check_sizes(settings.to_dict(), settings)
    return settings


def plain_config(settings: PretrainedConfig) -> dict[str, Any]:
    """A configuration as ``build_network`` takes it: by it a network is built again from nothing.

    It holds only numbers, text, lists and mappings.
    """
    known = configuration(settings.model_type).to_dict().keys() - NOT_OF_THE_NETWORK
    return {key: value for key, value in settings.to_dict().items() if key in known}


def _refused(architecture: str, config: Mapping[str, Any], error: Exception) -> UserError:
    return UserError(f"model.config: {architecture} refuses {dict(config)}: {error}")


def _train_every_row(network: Any) -> None:
    """Has the row of the padding token trained like others: no text is padded, its id is a token's.

    Such a row is 0 in a new network, and its gradient would stay 0.
    """
    embedding = network.get_input_embeddings()
    row = getattr(embedding, "padding_idx", None)
    if row is None:
        return
    embedding.padding_idx = None
    weight = embedding.weight
    if not weight.is_meta and not weight[row].any():
        nn.init.normal_(weight.data[row], std=getattr(network.config, "initializer_range", 0.02))


def _check_loaded(pretrained: str, loaded: Mapping[str, Any]) -> None:
    """Raises UserError where a network has weights that the pretrained one lacks."""
    if missing := sorted(loaded["missing_keys"]):
        raise UserError(
            f"model.pretrained is {pretrained}, which lacks {len(missing)} of the weights that "
            f"model.config asks for ({missing[0]} …): they would be random; leave model.config out"
        )


def check_sizes(vocab_size: int, most: int | None, tokens: int, context: int) -> None:
    """Refuses a model that knows fewer tokens, or fewer positions, than its data has.

    Rotary positions beyond a model's maximum would raise no error.
    """
    if vocab_size < tokens:
        raise UserError(
            f"model.config.vocab_size is {vocab_size}, but the corpus has {tokens} tokens: give "
            "the model as many (store.vocab_size)"
        )
    if most is not None and most < context:
        raise UserError(
            f"model.config allows {most} positions, but data.context is {context}: lower "
            "data.context, or raise the model's max_position_embeddings"
        )


def check_vocabulary(pretrained: str, corpus: Mapping[str, int]) -> None:
    """Raises UserError if a pretrained model's tokenizer gives the corpus's tokens other ids.

    Args:
        pretrained: as ``LanguageModel`` takes it. Only a folder's ``tokenizer.json`` is compared;
            without one a warning says what must hold.
        corpus: ids of the corpus's tokenizer by token.
    """
    path = Path(pretrained, "tokenizer.json")
    if not path.is_file():
        logger.warning(
            "model.pretrained is %s, which has no tokenizer.json here to compare with: its weights "
            "are of use only if corpus.tokenizer is its own",
            pretrained,
        )
        return
    own = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    others = [token for token, number in corpus.items() if own.get(token) != number]
    if others:
        raise UserError(
            f"model.pretrained is {pretrained}, whose tokenizer gives {len(others):,} of the "
            f"corpus's {len(corpus):,} tokens other ids: set corpus.tokenizer={path}"
        )


def check_causal(network: Any, architecture: str, context: int | None = None) -> None:
    """Raises UserError for a network whose prediction of a token depends on that token, or later.

    Its losses would be those of copying. The gradient of all losses but the last, by the embedding
    of the last token that the network sees, is exactly 0 in a causal one; a few tokens suffice.
    """
    count = min(PROBED, context or PROBED)
    embedding = network.get_input_embeddings()
    if count < 2 or next(network.parameters()).is_meta:
        return
    settings = network.config.to_dict().items()
    special = [value for key, value in settings if key.endswith(("_id", "_index"))]  # e.g. padding
    plain = [token for token in range(min(network.config.vocab_size, 64)) if token not in special]
    tokens = torch.tensor((plain * count)[: count + 1])
    looked_up: list[Tensor] = []
    hook = embedding.register_forward_hook(
        lambda *given: looked_up.append(given[-1].requires_grad_())
    )
    was_training = network.training
    try:
        with torch.enable_grad():
            logits = network.eval()(input_ids=tokens[None, :-1], use_cache=False).logits
            losses = token_losses(logits, tokens[None, 1:])
            (gradient,) = torch.autograd.grad(losses[:, :-1].sum(), looked_up[0])
    except Exception as error:  # of a kernel that only another device has
        reason = f"{type(error).__name__}: {error}"
        logger.warning(
            "model.architecture is %s: not known to be causal (%s)", architecture, reason
        )
        return
    finally:
        hook.remove()
        network.train(was_training)
    sizes = gradient[0].abs().amax(dim=-1)
    if sizes[-1] > 1e-5 * sizes.max():
        raise UserError(
            f"model.architecture is {architecture}, which sees the tokens that it is to predict: "
            "take a causal one such as gpt2 or llama, or set model.config.is_decoder: true where "
            f"{architecture} has it"
        )


def _check_sizes(config: Any, settings: PretrainedConfig, path: str = "model.config") -> None:
    """Raises UserError for sizes that transformers takes, and that fail or never end later."""
    if isinstance(config, list | tuple):
        for each in config:
            _check_sizes(each, settings, path)
    if isinstance(config, int) and config > MOST_LAYERS and _LAYERS.search(path):
        raise UserError(f"{path} is {config}: at most {MOST_LAYERS} layers are built")
    if not isinstance(config, Mapping):
        return
    defaults = settings.to_dict()
    for key, value in config.items():
        name = settings.attribute_map.get(str(key), str(key))
        default = defaults.get(name)
        is_size = isinstance(default, int) and default >= 1 and not name.endswith("_id")
        if is_size and type(value) is int and value < 1:
            raise UserError(f"{path}.{key} is {value}: it must be ≥ 1")
        _check_sizes(value, settings, f"{path}.{key}")

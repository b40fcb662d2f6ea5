"""A checkpoint as a model of lm-evaluation-harness.

Its own command line finds it by ``python -m dograph.evaluation.harness --model dograph
--model_args checkpoint=RUN --tasks …``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerFast

from dograph.data.corpus.store import Store
from dograph.evaluation.evaluated_model import EvaluatedModel, open_evaluated


@register_model("dograph")
class CheckpointLM(HFLM):
    """The library's own causal model, over a checkpoint's network and its store's tokenizer.

    Text is tokenised as the store was: without added tokens, and special tokens that are spelt
    out stay text.

    Args:
        checkpoint: opened, or what ``open_evaluated`` takes, as it takes ``corpus`` and ``device``.
        batch_size: a number, or "auto".
        max_batch_size: largest batch of "auto".
    """

    def __init__(
        self,
        checkpoint: str | Path | EvaluatedModel,
        corpus: str | None = None,
        batch_size: int | str | None = 1,
        device: str | None = None,
        max_batch_size: int | None = 64,
    ) -> None:
        if not isinstance(checkpoint, EvaluatedModel):
            store = Path(corpus) if corpus else None
            checkpoint = open_evaluated(Path(checkpoint), store, device=device or "auto")
        self.evaluated = checkpoint
        with quiet():  # it warns that it was given a model and not a name
            super().__init__(
                pretrained=checkpoint.model.network,
                backend="causal",
                tokenizer=fast_tokenizer(checkpoint.store),
                max_length=checkpoint.model.context or checkpoint.context,
                batch_size=batch_size or 1,
                max_batch_size=max_batch_size,
                add_bos_token=False,
            )

    def get_model_info(self) -> dict[str, Any]:
        """What lm_eval writes beside its results; the default asks a hub."""
        network = self.evaluated.model.network
        return {
            "model_num_parameters": network.num_parameters(),
            "model_dtype": network.dtype,
            "checkpoint": str(self.evaluated.checkpoint),
        }


@contextmanager
def quiet() -> Iterator[None]:
    """Silences lm_eval's messages below an error inside the block."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def fast_tokenizer(store: Store) -> PreTrainedTokenizerFast:
    """A store's tokenizer as one of transformers."""
    tokenizer = store.tokenizer()
    end = tokenizer.id_to_token(store.end_of_text)
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=end,
        eos_token=end,
        pad_token=end,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()

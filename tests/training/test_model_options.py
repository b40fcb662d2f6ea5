"""Gradient checkpointing, attention, precision and experts' balance in whole runs."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dograph.data.batch import Batch
from dograph.errors import UserError
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import run
from dograph.training.checkpoint_reader import load_model
from dograph.training.language_model import LanguageModel

LLAMA = "model.config={hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, "
LLAMA += "num_attention_heads: 2, num_key_value_heads: 1}"
MIXTRAL = LLAMA[:-1] + ", num_local_experts: 4, num_experts_per_tok: 2}"
CLUSTERS = ["mixer.init_args.clusters=2"]
SCHEDULE = ["mixer.init_args={interval: 2, measure: 6, skip: 0}", "target=code"]


def final(path, *keys):
    folder = run(check(compose(path, keys)))
    return folder, load_model(folder / "checkpoints" / "final.ckpt").state_dict()


def test_checkpointed_blocks_train_to_the_same_weights(small_recipe):
    path = small_recipe("small", "dograph.mixers.DoGraph")
    keys = ["model.architecture=llama", LLAMA, *CLUSTERS, "sketch.blocks=model"]
    _, plain = final(path, *keys)
    _, checkpointed = final(path, *keys, "model.gradient_checkpointing=true", "name=other")
    assert all(torch.allclose(plain[key], checkpointed[key], atol=1e-5) for key in plain)


def test_attention_is_chosen_by_name():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"vocab_size": 50, "num_key_value_heads": 2, "intermediate_size": 16}
    model = LanguageModel("llama", sizes, attention="eager")
    assert model.network.config._attn_implementation == "eager"
    with pytest.raises(UserError, match=r"model\.attention is 'egaer': llama refuses it"):
        LanguageModel("llama", sizes, attention="egaer")


@pytest.mark.parametrize(
    ("mixer", "keys", "precision"),
    [
        ("Stratified", [], "bf16-true"),
        ("DoGraph", [*CLUSTERS, "sketch.blocks=model"], "bf16-true"),
        ("DoGraph", [*CLUSTERS, "sketch.blocks=model"], "64-true"),
        ("DoGraphSchedule", SCHEDULE, "bf16-true"),
    ],
)
def test_a_mixture_of_experts_trains_in_any_precision(mixer, keys, precision, small_recipe):
    path = small_recipe("small", f"dograph.mixers.{mixer}")
    precise = [f"trainer.precision={precision}", "model.architecture=mixtral", MIXTRAL]
    folder, state = final(path, *precise, *keys)
    assert all(value.isfinite().all() for value in state.values())
    events = EventAccumulator(str(folder))
    events.Reload()
    balance = [event.value for event in events.Scalars("train/load_balance")]
    assert balance and min(balance) > 0.9  # 1 per expert that is chosen, if all are alike: 2
    assert json.loads((folder / "summary.json").read_text())


def test_the_balance_of_experts_counts_by_transformers_coefficient():
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 4}
    sizes |= {"vocab_size": 50, "router_aux_loss_coef": 0.5}
    model = LanguageModel("mixtral", sizes)
    tokens = torch.randint(0, 50, (3, 13), generator=torch.manual_seed(0))
    batch = Batch(tokens, torch.zeros(3).long(), torch.zeros(3, 2).long())
    short = tokens[:, :-1]
    balance = model.network(input_ids=short, output_router_logits=True).aux_loss
    plain = model.token_losses(tokens).mean()
    torch.testing.assert_close(model.training_step(batch, 0), plain + 0.5 * balance)
    without = LanguageModel("mixtral", {**sizes, "router_aux_loss_coef": 0.0})
    assert without.balance_coefficient == 0

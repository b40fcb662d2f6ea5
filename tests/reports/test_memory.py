"""The estimates of memory against what torch keeps."""

import pytest
import torch

from dograph.reports.memory import (
    Precision,
    activation_bytes,
    checkpoint_bytes,
    device_memory,
    parameter_count,
)
from dograph.training.language_model import LanguageModel

BATCH, CONTEXT = 4, 64
MODELS = {
    "gpt2": {"n_layer": 3, "n_embd": 128, "n_head": 4},
    "gpt_neox": {
        "num_hidden_layers": 3,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "intermediate_size": 512,
    },
    "llama": {
        "num_hidden_layers": 3,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "intermediate_size": 344,
    },
}


def built(architecture, device="cpu"):
    own = {"vocab_size": 500, "bos_token_id": 0, "eos_token_id": 0}
    with torch.device(device):
        config = {**MODELS[architecture], **own, "max_position_embeddings": CONTEXT}
        return LanguageModel(architecture, config)


@pytest.mark.parametrize("architecture", MODELS)
def test_activations_are_what_a_forward_keeps(architecture):
    model = built(architecture)
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # held on to, so that no address is used twice

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.randint(0, 500, (BATCH, CONTEXT + 1))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.token_losses(tokens).mean()
    found = sum(each.untyped_storage().nbytes() for each in kept.values())
    found += 4 * BATCH * CONTEXT * 500  # the gradient of the logits, which the backward makes
    assert BATCH * CONTEXT * activation_bytes(model.network, 4) == pytest.approx(found, rel=0.15)


def test_the_meta_device_gives_the_same_estimate():
    real, meta = (built("llama", device).network for device in ("cpu", "meta"))
    arguments = (BATCH, CONTEXT, Precision())
    assert device_memory(real, *arguments) == device_memory(meta, *arguments)


def test_sharding_leaves_each_device_its_part_and_one_block():
    network = built("gpt2").network
    count = parameter_count(network)
    alone = device_memory(network, BATCH, CONTEXT, Precision())
    ddp = device_memory(network, BATCH, CONTEXT, Precision(), devices=4)
    fsdp = device_memory(network, BATCH, CONTEXT, Precision(), devices=4, sharded=True)
    assert (alone.parameters, alone.gradients, alone.moments) == (4 * count, 4 * count, 8 * count)
    assert ddp.gradients == 8 * count  # DDP's buckets hold them a second time
    assert fsdp.moments == 8 * -(-count // 4)
    block = parameter_count(network.transformer.h[0])
    assert fsdp.parameters == 4 * -(-count // 4) + 4 * block
    assert alone.total < ddp.total
    assert fsdp.activations == ddp.activations


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, (4, 4)),
        ("32-true", (4, 4)),
        (32, (4, 4)),
        ("bf16-mixed", (4, 2)),
        (16, (4, 2)),
        ("bf16-true", (2, 2)),
        ("64-true", (8, 8)),
    ],
)
def test_precisions_by_every_name(name, expected):
    precision = Precision.parse(name)
    assert (precision.parameter, precision.activation) == expected


def test_a_checkpoint_holds_parameters_and_two_moments(tmp_path):
    network = built("gpt2").network
    optimizer = torch.optim.AdamW(network.parameters())
    network(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    content = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "own.ckpt")
    size = (tmp_path / "own.ckpt").stat().st_size
    assert checkpoint_bytes(network, Precision()) == pytest.approx(size, rel=0.03)

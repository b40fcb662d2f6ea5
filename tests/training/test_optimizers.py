"""Optimisers by class path: each trains, skips what is not finite, resumes; mistakes are named."""

import pytest
import torch

from dograph.errors import UserError
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import run
from dograph.training.checkpoint_reader import load_model, read_checkpoint
from dograph.training.language_model import LanguageModel
from dograph.training.optimizers import MuonAndAdamW, build_optimizer, check_optimizer

TINY = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 50, "n_positions": 12}
CHOICES = [
    {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}},
    {"class_path": "torch.optim.AdamW", "init_args": {"fused": False}},
    {"class_path": "torch.optim.Adafactor"},
    {"class_path": "torch.optim.Muon"},
]


def name(choice):
    return choice["class_path"].rpartition(".")[2]


def built(choice, network):
    return build_optimizer(network, choice, 1e-2, (0.1, 0.0), (0.9, 0.95), fused=True)


@pytest.mark.parametrize("kind", ["SGD", "Muon"])
def test_a_run_trains_and_resumes_by_it(kind, small_recipe):
    keys = [f"model.optimizer.class_path=torch.optim.{kind}"]
    keys += ["model.optimizer.init_args.momentum=0.9"]
    recipe = check(compose(small_recipe("small"), keys))
    folder = run(recipe)
    final = folder / "checkpoints" / "final.ckpt"
    expected = load_model(final).state_dict()
    state = read_checkpoint(final)["optimizer_states"][0]
    assert len(state["state"]) == sum(len(group["params"]) for group in state["param_groups"])
    for path in (final, folder / "checkpoints" / "step=8.ckpt", folder / "summary.json"):
        path.unlink(missing_ok=True)  # as if it had been killed after step 4
    run(recipe, resume=folder)
    resumed = load_model(final).state_dict()
    assert all(torch.equal(resumed[key], value) for key, value in expected.items())


@pytest.mark.parametrize("choice", CHOICES, ids=name)
def test_parameters_without_gradients_do_not_move(choice):
    network = LanguageModel(config=TINY).network
    optimizer = built(choice, network)
    tokens = torch.arange(12)[None]
    network(input_ids=tokens, labels=tokens).loss.backward()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer.zero_grad()  # as a step that is not finite is skipped
    optimizer.step()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    network(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    assert all(not torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_muon_has_the_blocks_matrices_and_adamw_the_rest():
    network = LanguageModel(config=TINY).network
    optimizer = built({"class_path": "torch.optim.Muon"}, network)
    assert isinstance(optimizer, MuonAndAdamW)
    muon, adamw = optimizer.parts
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    hidden = {names[id(each)] for group in muon.param_groups for each in group["params"]}
    assert hidden == {
        f"transformer.h.0.{key}.weight"
        for key in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    rest = {names[id(each)] for group in adamw.param_groups for each in group["params"]}
    assert hidden | rest == set(names.values())
    again = built({"class_path": "torch.optim.Muon"}, network)
    again.load_state_dict(optimizer.state_dict())
    assert all(part.state is again.state for part in again.parts)
    assert again.parts[0].param_groups[0] is again.param_groups[0]


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"class_path": "torch.optim.SDG"}, r"name an optimiser of torch\.optim; did you mean"),
        ({"class_path": "os.system"}, r"class_path is 'os\.system': name an optimiser"),
        ({"class_path": "torch.optim.LBFGS"}, "name an optimiser of torch"),
        ({"class_path": "torch.optim.SGD", "init_args": {"lr": 1}}, r"set model\.learning_rate"),
        ({"class_path": "torch.optim.SGD", "init_args": {"momentun": 1}}, "momentun"),
        ({"class_path": "torch.optim.SGD", "args": {}}, r"model\.optimizer has no key 'args'"),
        ({"class_path": "torch.optim.SGD", "init_args": 3}, r"init_args is 3: write"),
    ],
)
def test_mistakes_are_named_before_training(optimizer, message):
    with pytest.raises(UserError, match=message):
        check_optimizer(optimizer)


def test_a_recipe_names_the_file_of_a_wrong_optimizer(small_recipe):
    path = small_recipe("small", more="")
    keys = ["model.optimizer.class_path=torch.optim.Nope"]
    with pytest.raises(UserError, match=r"command line: model\.optimizer\.class_path is"):
        check(compose(path, keys))

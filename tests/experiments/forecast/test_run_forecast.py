"""What a plan says of a run, against the run."""

import json

import pytest

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.experiments.forecast.domains import forecast_domains, repetition
from dograph.experiments.forecast.run_forecast import forecast_run
from dograph.experiments.recipe.check import check
from dograph.experiments.recipe.compose import compose
from dograph.experiments.run import build_data
from dograph.files.run_dir import FINAL_CHECKPOINT
from dograph.reports.summary import read_summary

PICO = "model.config={n_layer: 2, n_embd: 64, n_head: 2}"
THOUSAND = ["trainer.accelerator=gpu", "trainer.devices=8", "trainer.num_nodes=128"]
SEVEN_BILLION = [
    *(*THOUSAND, "trainer.strategy=fsdp", "model.architecture=llama"),
    "model.config.num_hidden_layers=32",
]


def forecast(path, store, *overrides):
    return forecast_run(check(compose(path, overrides)), store)


@pytest.mark.parametrize(
    ("mixer", "overrides"),
    [
        ("Stratified", ["data.unseen=[code]", "data.cap={animals: 400}"]),
        ("Proportional", ["trainer.accumulate_grad_batches=3"]),
        ("DoGE", ["mixer.init_args.gradients=exact", "trainer.gradient_clip_val=1"]),
        ("UniMax", ["mixer.init_args.max_epochs=0.5", "target=code"]),
    ],
)
def test_a_run_draws_costs_and_leaves_what_was_forecast(
    small_recipe, store, tmp_path, capfd, mixer, overrides
):
    path = small_recipe("planned", f"dograph.mixers.{mixer}", steps=12)
    words = [PICO, *overrides]
    planned = forecast(path, store, *words)
    assert main(["run", str(path), *words]) == 0
    run = read_summary(tmp_path / "runs" / "planned" / "seed_0")
    assert planned.tokens == run.tokens
    assert planned.flops == pytest.approx(run.flops, rel=1e-9)
    for ahead, drawn in zip(planned.domains, run.domains, strict=True):
        sequence = planned.context
        assert ahead.name == drawn.name
        assert abs(ahead.tokens - drawn.tokens) <= sequence
        assert ahead.epochs == pytest.approx(drawn.epochs, abs=1.001 * sequence / ahead.available)
        if drawn.tokens:
            assert drawn.tokens / drawn.epochs == pytest.approx(ahead.available)
    size = (tmp_path / "runs" / "planned" / "seed_0" / FINAL_CHECKPOINT).stat().st_size
    assert planned.checkpoint_bytes == pytest.approx(size, rel=0.1)
    first, second = capfd.readouterr().out.splitlines()[:2]
    assert first.startswith(f"{planned.parameters:,} parameters, 12 steps of ")
    assert f"{planned.tokens:,} tokens, {planned.flops:.2e} FLOPs" in first
    assert second == repetition(planned.domains)


def test_domains_repeat_from_the_step_that_begins_their_second_epoch(small_recipe, store):
    cap = "data.cap={animals: 400, numbers: 800}"
    path = small_recipe("repeats", "dograph.mixers.Proportional")
    recipe = check(compose(path, [cap, "trainer.max_steps=500"]))
    data = build_data(recipe)
    data.store = store
    data.begin(1, 500)
    expected = forecast_domains(data, 500, 8)
    first: dict[str, int] = {}
    for step in range(1, 501):
        for domain, _ in data.sampler.draw_batch():
            if data.sampler.orders[domain].epoch:
                first.setdefault(data.domains[domain], step)
    assert {"animals", "numbers"} <= first.keys()
    for each in expected:
        if each.name in first:
            rate = each.weight * 8  # one sequence more or less, in steps
            assert abs(each.repeats_at - first[each.name]) <= 1 / rate + 1
        else:
            assert each.repeats_at is None
            assert each.epochs <= 1


def test_at_most_three_repeating_domains_are_named(small_recipe, store):
    domains = forecast(small_recipe("many"), store, "trainer.max_steps=100000").domains
    text = repetition([*domains, *domains])
    assert text.count(" from step ") == 3
    assert text.endswith(" and 3 more")


def test_seven_billion_parameters_on_a_thousand_devices(small_recipe, store):
    run = forecast(small_recipe("large"), store, *SEVEN_BILLION, "model.config.vocab_size=32000")
    assert run.parameters == 6_738_415_616  # arXiv 2302.13971, table 2: "6.7B"
    assert run.devices.count == 1024
    assert run.step_tokens == 1024 * 8 * 16
    ddp, fsdp = run.memory["ddp"], run.memory["fsdp"]
    assert ddp.moments == 8 * run.parameters
    assert fsdp.moments == pytest.approx(8 * run.parameters / 1024, rel=1e-6)
    assert fsdp.activations == ddp.activations
    assert run.checkpoint_bytes == 12 * run.parameters
    (note,) = run.notes
    assert note.startswith("4 validation sequences of a domain for 1,024 devices")


def test_half_precision_halves_what_is_kept_in_it(small_recipe):
    path = small_recipe("half")
    single, mixed, half = (
        forecast(path, None, f"trainer.precision={name}").memory["device"]
        for name in ("32-true", "bf16-mixed", "bf16-true")
    )
    assert half.moments == single.moments / 2 == mixed.moments / 2
    assert half.activations == mixed.activations == single.activations / 2
    assert single.parameters < mixed.parameters < 1.5 * single.parameters


def test_limits_hold_the_first_weights_and_are_named(small_recipe, store):
    limits = "limits={epochs: {animals: 0.5}, at_least: {code: 0.6}}"
    run = forecast(small_recipe("limited"), store, limits, "trainer.max_steps=400")
    animals, code, _ = run.domains
    assert code.weight >= 0.6 - 1e-6
    assert animals.most == pytest.approx(animals.available / 2, abs=run.context)
    assert animals.tokens <= animals.most + run.context
    assert code.most is None


def test_a_reference_and_domains_gradients_are_counted(small_recipe, store):
    doge = forecast(small_recipe("a", "dograph.mixers.DoGE"), store)
    assert doge.memory["device"].signals == 3 * 4 * doge.parameters
    path = small_recipe("b", "dograph.mixers.DoReMi")
    doremi = forecast(path, store, "mixer.init_args.reference=of.ckpt")
    assert doremi.memory["device"].signals == 4 * doremi.parameters


def test_without_a_store_what_does_not_need_it_is_there(small_recipe):
    path = small_recipe("unprepared", "dograph.mixers.DoGEOnline")
    run = forecast(path, None, "mixer.init_args.gradients=sketch")
    assert run.domains is None
    assert run.tokens == 8 * 8 * 16
    assert run.parameters > 0 < run.flops
    assert any("probes" in note for note in run.notes)


def test_a_pretrained_model_is_sized_without_its_weights(small_recipe, store, tmp_path):
    from transformers import AutoConfig

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    AutoConfig.for_model("llama", **sizes, intermediate_size=64).save_pretrained(tmp_path / "own")
    path = small_recipe("pretrained")
    text = path.read_text().replace("config: {n_layer: 1, n_embd: 16, n_head: 2}", "config: {}")
    path.write_text(text)
    run = forecast(path, store, f"model.pretrained={tmp_path / 'own'}")
    a_block = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32
    assert run.parameters == 2 * a_block + 32 + 2 * 32_000 * 32  # its own vocabulary


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mixer.class_path=dograph.mixers.DoGraph", "data.batch_size=2"], "clusters"),
        (["model.config.vocab_size=100"], "model.config.vocab_size is 100"),
        (["data.context=100000"], "data.context"),
        (["trainer.devices=some"], "command line: trainer.devices is 'some'"),
    ],
)
def test_what_a_run_would_refuse_is_refused(small_recipe, store, overrides, message):
    with pytest.raises(UserError, match=message):
        forecast(small_recipe("refused"), store, *overrides)


def test_all_of_it_is_json(small_recipe, store):
    content = json.loads(json.dumps(forecast(small_recipe("json"), store).as_json()))
    assert content["domains"][0]["name"] == "animals"
    assert content["memory"]["device"]["total"] == sum(
        value for key, value in content["memory"]["device"].items() if key != "total"
    )

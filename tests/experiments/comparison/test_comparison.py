"""From run folders to a comparison: pairing, costs, refusals."""

import json
import re
import shutil

import pytest
from omegaconf import OmegaConf
from written_runs import DOMAINS, RECIPE, write_experiment, write_run, write_study

from dograph.errors import UserError
from dograph.experiments.comparison.comparison import compare
from dograph.experiments.comparison.runs import find_runs


def recipe(**sections):
    """The recipe with other values in some sections."""
    return {name: {**values, **sections.get(name, {})} for name, values in RECIPE.items()}


def test_differences_are_paired_by_seed(tmp_path):
    # Seeds differ by 0.8 nats, the methods by 0.1 with every seed: only pairing sees it.
    result = compare([write_study(tmp_path, spread=0.01)])
    uniform, other = result.methods
    assert (uniform.label, other.label) == ("uniform", "other")
    assert uniform.mean.half > 0.3
    assert other.paired.mean.mean == pytest.approx(-0.1 + 0.01 / 5)
    assert other.paired.mean.half < 0.02
    assert other.paired.verdict == "win"
    assert other.paired.worst.mean == pytest.approx(other.paired.mean.mean)
    assert other.paired.domains.keys() == {"code", "prose"}
    (smallest,) = result.notes
    assert smallest.startswith("Smallest true difference")


def test_the_baseline_is_the_stratified_method_or_the_one_named(tmp_path):
    study = write_study(tmp_path)
    assert compare([study]).baseline.name == "uniform_gpt2"
    assert compare([study], "other").baseline.name == "other_gpt2"
    assert compare([study], "other_gpt2").methods[1].paired.verdict == "loss"
    with pytest.raises(UserError, match=r"no such method.*uniform_gpt2"):
        compare([study], "unifrom_gpt2")
    with pytest.raises(UserError, match="name the baseline"):
        compare([study / "other_gpt2"])


def test_tokens_and_seconds_to_the_baselines_end_count_every_stage(tmp_path):
    start, end = (5.0, 5.0), (3.0, 3.0)
    write_run(tmp_path / "uniform" / "seed_0", 0, [start, end])
    write_experiment(tmp_path / "staged" / "seed_0", 0, [start, (1.0, 1.0)])
    write_run(tmp_path / "slow" / "seed_0", 0, [start, (4.0, 4.0)], "Proportional")
    result = compare([tmp_path])
    methods = {method.label: method for method in result.methods}
    # Half of the way from 5 to 1 is half of that from 2,000 to 4,000 tokens; the proxy cost 1,000.
    assert methods["staged"].time_to_target.tokens.mean == pytest.approx(1000 + 3000)
    assert methods["staged"].time_to_target.seconds.mean == pytest.approx(5 + 7.5)
    assert methods["staged"].cost["tokens"].mean == 5000
    assert methods["staged"].cost["seconds"].mean == 15
    assert methods["uniform"].time_to_target.tokens.mean == 4000
    assert methods["slow"].time_to_target.tokens is None
    assert methods["slow"].time_to_target.reached == 0
    assert result.notes == (
        "With one seed no difference can be told from noise.",
        "Fewer than 5 seeds (1) show a direction and are no claim.",
    )


def write_targets(runs, target, unseen=()):
    """Two methods with two domains' losses each; by the mean they are a tie."""
    data = {**RECIPE["data"], "unseen": list(unseen)}
    more = {"recipe": {**RECIPE, "data": data, "target": target}}
    for seed in range(3):
        shift = 0.1 * seed
        start, spread = (6.0, 6.0), 0.01 * seed
        write_run(
            runs / "uniform" / f"seed_{seed}", seed, [start, (3.0 + shift, 4.0 - shift)], **more
        )
        end = (2.5 + shift + spread, 4.5 - shift)
        write_run(runs / "other" / f"seed_{seed}", seed, [start, end], "Proportional", **more)
        end = (3.5 + shift + spread, 3.5 - shift)
        write_run(runs / "third" / f"seed_{seed}", seed, [start, end], "Temperature", **more)
    return compare([runs])


@pytest.mark.parametrize(
    ("target", "unseen", "order", "ends"),
    [
        ("code", (), ["other", "third"], [3.1, 2.61, 3.61]),
        ("prose", ("prose",), ["third", "other"], [3.9, 4.4, 3.4]),
        (None, ("prose",), ["other", "third"], [3.1, 2.61, 3.61]),
        ({"code": 0, "prose": 7}, (), ["third", "other"], [3.9, 4.4, 3.4]),
        ("worst", (), ["third", "other"], [3.9, 4.4, 3.61]),
    ],
)
def test_methods_are_judged_and_ordered_by_the_target(tmp_path, target, unseen, order, ends):
    result = write_targets(tmp_path, target, unseen)
    base, *others = result.methods
    assert [method.name for method in others] == order
    found = {method.name: method.target.mean for method in result.methods}
    assert [found[name] for name in ("uniform", "other", "third")] == pytest.approx(ends)
    for method in others:
        paired = method.paired
        assert paired.target.mean == pytest.approx(found[method.name] - base.target.mean)
        if target != "worst":  # which is another domain with another seed
            assert paired.verdict == ("ahead" if paired.target.mean < 0 else "behind")
        reaches = method.target.mean < base.target.mean
        assert method.time_to_target.reached == (3 if reaches else 0)


def test_an_allowed_target_gives_way_to_the_baselines(tmp_path):
    curve = [(5.0, 5.0), (3.0, 4.0)]
    write_run(tmp_path / "uniform" / "seed_0", 0, curve, recipe=recipe() | {"target": "code"})
    write_run(tmp_path / "other" / "seed_0", 0, curve, "Fixed", recipe=recipe())
    result = compare([tmp_path], allowed=["target"])
    assert [method.target.mean for method in result.methods] == [3.0, 3.0]
    assert result.target.label == "code"


@pytest.mark.parametrize(
    ("condition", "changed", "said"),
    [
        ("target", {"recipe": recipe() | {"target": "code"}}, ("code", "even")),
        ("target", {"recipe": recipe() | {"target": "worst"}}, ("worst", "even")),
        (
            "training",
            {"recipe": recipe(data={"unseen": ["code"]})},
            (r"data.unseen \['code'\]", r"data.unseen \[\]"),
        ),
        (
            "training",
            {"recipe": recipe(data={"cap": {"code": 900}})},
            ("data.cap.code 900", "data.cap.code not set"),
        ),
        ("tokens", {"tokens": 8000}, ("8,000", "4,000")),
        ("tokenizer", {"tokenizer": "0ther"}, ("0ther", "beef")),
        (
            "validation",
            {"recipe": recipe(data={"validation_sequences": 32})},
            ("data.validation_sequences 32", "data.validation_sequences 16"),
        ),
        (
            "validation",
            {"recipe": recipe(data={"context": 32})},
            ("data.context 32", "data.context 64"),
        ),
        ("validation", {"more_metadata": {"validation_fingerprint": "v"}}, ("text v", "text f00d")),
        (
            "model",
            {"recipe": recipe(model={"config": {"n_layer": 9}})},
            (
                "model.config.n_layer 9, model.config.n_embd not set",
                "model.config.n_layer 1, model.config.n_embd 16",
            ),
        ),
        (
            "training",
            {"recipe": recipe(model={"learning_rate": 0.1})},
            ("model.learning_rate 0.1", "model.learning_rate 0.001"),
        ),
        ("training", {"recipe": recipe(data={"batch_size": 4})}, ("batch_size 4", "batch_size 8")),
        ("training", {"more_metadata": {"host": {"processes": 4}}}, ("processes 4", "processes 1")),
    ],
)
def test_what_does_not_compare_is_refused_unless_allowed(tmp_path, condition, changed, said):
    curve = [(5.0, 5.0), (3.0, 3.0)]
    write_run(tmp_path / "uniform" / "seed_0", 0, curve)
    write_run(tmp_path / "other" / "seed_0", 0, curve, "Proportional", **changed)
    with pytest.raises(UserError, match="not comparable") as refusal:
        compare([tmp_path])
    other, own = said
    assert re.search(f"{other} in .*/other/seed_0; .*{own} in .*/uniform", str(refusal.value))
    assert f"--allow {condition}" in str(refusal.value)
    assert "other/seed_0" in str(refusal.value)
    result = compare([tmp_path], allowed=[condition])
    assert len(result.methods) == 2
    assert any("other/seed_0" in note for note in result.notes)


def test_another_corpus_is_another_validation_set_too(tmp_path):
    curve = [(5.0, 5.0), (3.0, 3.0)]
    write_run(tmp_path / "uniform" / "seed_0", 0, curve)
    write_run(tmp_path / "other" / "seed_0", 0, curve, "Proportional", fingerprint="0ther")
    with pytest.raises(UserError, match="--allow validation"):
        compare([tmp_path], allowed=["corpus"])
    assert compare([tmp_path], allowed=["corpus", "validation"])


def test_what_is_written_otherwise_is_the_same(tmp_path):
    curve = [(5.0, 5.0), (3.0, 3.0)]
    write_run(tmp_path / "uniform" / "seed_0", 0, curve)
    config = {"n_embd": 16, "n_layer": 1}  # another order, and defaults written out
    same = recipe(model={"config": config, "learning_rate": 1.0e-3}, data={"draw": "stratified"})
    del same["model"]["architecture"]
    write_run(tmp_path / "other" / "seed_0", 0, curve, "Proportional", recipe=same)
    assert len(compare([tmp_path]).methods) == 2


def test_another_host_is_noted(tmp_path):
    curve = [(5.0, 5.0), (3.0, 3.0)]
    write_run(tmp_path / "uniform" / "seed_0", 0, curve)
    more = {"commit": "bad", "host": {"cores": 64}}
    write_run(tmp_path / "other" / "seed_0", 0, curve, "Proportional", more_metadata=more)
    notes = compare([tmp_path]).notes
    assert any("cores 64" in note for note in notes)
    assert any("Runs differ in their commit: bad in" in note for note in notes)


def test_a_method_is_one_method(tmp_path):
    curve = [(5.0, 5.0), (3.0, 3.0)]
    write_run(tmp_path / "uniform" / "seed_0", 0, curve)
    for seed, weights in ((0, {"a": 1}), (1, {"a": 2})):
        values = {"mixer": {"class_path": "mine.M", "init_args": weights}, **RECIPE}
        write_run(tmp_path / "mine" / f"seed_{seed}", seed, curve, "M", recipe=values)
    with pytest.raises(
        UserError, match=r"runs of mine are not of one method: run.*a 1 in .*seed_0"
    ):
        compare([tmp_path])


def own_mixer(folder, code=None, lookahead=4, seed=0):
    recipe = {**RECIPE, "mixer": {"class_path": "my.Mixer"}}
    recipe["data"] = {**RECIPE["data"], "lookahead": lookahead}
    recorded = {"inputs": {"mixer code": {"my.py": code}}} if code else {}
    write_run(folder, seed, [(4.0, 4.0)], recipe=recipe, more_metadata=recorded)


@pytest.mark.parametrize(
    ("second", "named"),
    [
        ({"code": "b"}, "mixer code.my.py a in .*mixer code.my.py b in"),
        ({"code": "a", "lookahead": 64}, "data.lookahead 4 in .*data.lookahead 64 in"),
        ({"code": "a"}, None),
    ],
)
def test_code_and_lookahead_make_a_method(tmp_path, second, named):
    own_mixer(tmp_path / "mine" / "seed_0", code="a")
    own_mixer(tmp_path / "mine" / "seed_1", seed=1, **second)
    if named is None:
        assert not any("code" in note for note in compare([tmp_path], baseline="mine").notes)
        return
    with pytest.raises(UserError, match=named):
        compare([tmp_path], baseline="mine")


@pytest.mark.parametrize(
    ("mixer", "target", "refused"),
    [
        ("dograph.mixers.SkillIt", None, True),
        ("dograph.mixers.DoGraphSchedule", "worst", True),
        ("dograph.mixers.DoGraphSchedule", None, False),
        ("dograph.mixers.Proportional", None, False),
        ("my.Mixer", None, True),
    ],
)
def test_validations_that_a_mixer_reads_make_a_method(tmp_path, mixer, target, refused):
    """A mixer that draws by validations is another method where it has them at other steps."""
    for seed, every in ((0, 10), (1, 20)):
        trainer = {**RECIPE["trainer"], "val_check_interval": every}
        recipe = {**RECIPE, "mixer": {"class_path": mixer}, "trainer": trainer, "target": target}
        write_run(tmp_path / "some" / f"seed_{seed}", seed, [(4.0, 4.0)], recipe=recipe)
    if not refused:
        compare([tmp_path], baseline="some")
        return
    with pytest.raises(UserError, match=r"val_check_interval 10 in .*val_check_interval 20 in"):
        compare([tmp_path], baseline="some")


def test_code_that_was_not_recorded_is_noted(tmp_path):
    own_mixer(tmp_path / "mine" / "seed_0", code="a")
    own_mixer(tmp_path / "mine" / "seed_1", seed=1)
    (note,) = [note for note in compare([tmp_path], baseline="mine").notes if "code" in note]
    assert str(tmp_path / "mine" / "seed_1") in note and "seed_0" not in note


def test_a_run_of_an_earlier_version_that_changed_midway_is_refused(tmp_path):
    folder = tmp_path / "uniform_gpt2" / "seed_0"
    later = OmegaConf.to_yaml({**RECIPE, "trainer": {"max_steps": 50}})
    write_run(folder, 0, [(4.0, 4.0)], more_metadata={"gone_on_with": [later]})
    with pytest.raises(UserError, match=r"seed_0: .*trainer\.max_steps.*\n.*--allow training"):
        compare([tmp_path])
    assert any("max_steps" in note for note in compare([tmp_path], allowed=["training"]).notes)


def test_one_name_in_two_folders_is_two_methods(tmp_path):
    curve = [(5.0, 5.0), (3.0, 3.0)]
    for place, tokens in (("short", 4000), ("long", 8000)):
        write_run(tmp_path / place / "uniform_gpt2" / "seed_0", 0, curve, tokens=tokens)
    result = compare([tmp_path], "short/uniform_gpt2", allowed=["tokens"])
    assert [method.name for method in result.methods] == ["short/uniform_gpt2", "long/uniform_gpt2"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("provenance.json", "{}", "says no seed"),
        ("provenance.json", "{", "is damaged"),
        ("history.json", "{", "is damaged"),
        ("recipe.yaml", "data: 3\nmodel: {}", "data must be a mapping"),
        ("recipe.yaml", "data: [", "cannot be read as YAML"),
        ("recipe.yaml", "target: {code: -1}", "target.code is -1"),
        ("recipe.yaml", "target: poetry", "target names 'poetry', not a domain"),
        ("recipe.yaml", "data: {unseen: 3}", "data.unseen: Expected Sequence"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, said):
    folder = write_run(tmp_path / "uniform" / "seed_0", 0, [(5.0, 5.0), (3.0, 3.0)])
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name}.*{said}|{said}.*{name}"):
        compare([tmp_path])


def test_a_damaged_experiment_is_named(tmp_path):
    folder = write_experiment(tmp_path / "staged" / "seed_0", 0, [(3.0, 3.0)])
    for content in ("{", '{"folder": "main"}', '{"folder": "main", "cost": {"stages": [3]}}'):
        (folder / "summary.json").write_text(content)
        with pytest.raises(UserError, match=r"summary\.json is damaged"):
            find_runs([tmp_path])


def test_an_unknown_condition_and_other_domains_are_refused(tmp_path):
    curve = [(5.0, 5.0), (3.0, 3.0)]
    write_run(tmp_path / "uniform" / "seed_0", 0, curve)
    with pytest.raises(UserError, match="did you mean 'tokens'"):
        compare([tmp_path], allowed=["token"])
    write_run(tmp_path / "other" / "seed_0", 0, curve, domains=("code", "law"))
    with pytest.raises(UserError, match="their losses do not compare"):
        compare([tmp_path], baseline="uniform")


def test_seeds_that_only_one_method_has_are_said_and_not_paired(tmp_path):
    curve = [(5.0, 5.0), (3.0, 3.0)]
    for seed in range(6):
        write_run(tmp_path / "uniform" / f"seed_{seed}", seed, curve)
    for seed in range(1, 7):
        write_run(tmp_path / "other" / f"seed_{seed}", seed, curve, "Proportional")
    result = compare([tmp_path])
    assert len(result.methods[1].paired.mean.values) == 5
    assert result.notes[1:] == ("Paired with uniform by seeds 1, 2, 3, 4, 5 only: other.",)


def test_runs_are_found_from_any_folder_above_and_only_whole_ones(tmp_path):
    study = write_study(tmp_path / "runs" / "study", seeds=(0, 1))
    write_experiment(study / "staged_gpt2" / "seed_0", 0, [(3.0, 3.0)])
    # A stage of an experiment that is under way, and a run that was killed.
    write_run(study / "staged_gpt2" / "seed_1" / "proxy", 1, [(3.0, 3.0)])
    (study / "staged_gpt2" / "seed_1" / "proxy" / "stage.json").write_text("{}")
    # Another whose proxy ended before the main run began.
    done = write_run(study / "staged_gpt2" / "seed_2" / "proxy", 2, [(3.0, 3.0)])
    (done / "stage.json").write_text('{"finished": true}')
    killed = write_run(study / "uniform_gpt2" / "seed_7", 7, [(3.0, 3.0)])
    (killed / "summary.json").unlink()
    for given in ([study], [tmp_path / "runs"], [study, study / "uniform_gpt2"]):
        runs = find_runs(given)
        assert [(run.method, run.seed) for run in runs] == [
            ("other_gpt2", 0),
            ("other_gpt2", 1),
            ("staged_gpt2", 0),
            ("uniform_gpt2", 0),
            ("uniform_gpt2", 1),
        ]
    notes = compare([study]).notes
    (left,) = (note for note in notes if "did not finish" in note)
    for place in ("uniform_gpt2/seed_7", "staged_gpt2/seed_1", "staged_gpt2/seed_2"):
        assert place in left
    assert "proxy" not in left


def test_runs_without_a_history_compare_by_their_ends(tmp_path):
    study = write_study(tmp_path, seeds=(0, 1))
    (study / "other_gpt2" / "seed_1" / "history.json").unlink()
    other = compare([study]).methods[1]
    assert other.seeds == (0, 1)
    assert other.paired.target.mean == pytest.approx(-0.1)
    assert other.time_to_target is None


def test_what_is_no_run_or_runs_twice_is_said(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        find_runs([tmp_path])
    with pytest.raises(UserError, match="no finished run"):
        find_runs([tmp_path / "nowhere"])
    write_run(tmp_path / "uniform" / "seed_0", 0, [(3.0, 3.0)])
    write_run(tmp_path / "uniform" / "seed_0_1", 0, [(3.0, 3.0)])
    with pytest.raises(UserError, match="both uniform with seed 0"):
        find_runs([tmp_path])


def test_a_run_without_a_finite_end_is_named(tmp_path):
    folder = write_run(tmp_path / "uniform" / "seed_0", 0, [(3.0, float("nan"))])
    assert json.loads((folder / "summary.json").read_text())["losses"]["prose"] is None
    with pytest.raises(UserError, match=r"uniform/seed_0.*without a finite validation loss"):
        compare([tmp_path])


def test_the_search_of_an_oracle_is_no_method(tmp_path):
    study = write_study(tmp_path, seeds=(0, 1))
    folder = study / "other_gpt2"
    write_run(folder / "mixtures" / "even" / "seed_0", 0, [(3.0, 3.0)])
    killed = write_run(folder / "mixtures" / "one" / "seed_0", 0, [(3.0, 3.0)])
    (killed / "summary.json").unlink()
    (folder / "oracle.json").write_text("{}")
    assert {run.method for run in find_runs([folder])} == {"other_gpt2"}
    assert not any("did not finish" in note for note in compare([study]).notes)
    assert len(find_runs([folder, folder / "mixtures" / "even"])) == 3


def write_staged(folder, seed, proxy=None, prior=None, weights=None):
    """An experiment whose main stage draws by what its proxy found, or by ``weights``."""
    write_experiment(folder, seed, [(5.0, 5.0), (4.0, 4.0)])
    found = dict.fromkeys(DOMAINS, 0.5)  # the proxy's average weights
    for stage, mixer, arguments, more in (
        ("proxy", "DoReMi", {"prior": prior} if prior else {}, proxy or {}),
        ("main", "Fixed", {"weights": weights or found}, {}),
    ):
        section = {"class_path": f"dograph.mixers.{mixer}", "init_args": arguments}
        if stage == "proxy":
            path = f"runs/staged/seed_{seed}/reference/checkpoints/final.ckpt"
            section["init_args"]["reference"] = path
        values = {**recipe(**more), "mixer": section, "name": "staged", "seed": seed}
        (folder / stage / "recipe.yaml").write_text(OmegaConf.to_yaml(values))
    reference = folder / "reference"
    write_run(reference, seed, [(9.0, 9.0)], tokens=1000)
    summary = json.loads((folder / "summary.json").read_text())
    summary["cost"]["stages"].insert(0, {"stage": "reference", "folder": "reference"})
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("second", "named"),
    [
        ({}, None),
        ({"proxy": {"trainer": {"max_steps": 5}}}, "proxy.trainer.max_steps 40 in .*seed_0"),
        ({"proxy": {"model": {"learning_rate": 0.5}}}, "proxy.model.learning_rate 0.5 in .*seed_1"),
        ({"proxy": {"data": {"batch_size": 4}}}, "proxy.data.batch_size 8 in .*seed_0"),
        ({"prior": {"code": 9, "prose": 1}}, "proxy.mixer.init_args.prior.code 9, "),
        ({"weights": {"code": 1, "prose": 0}}, "main.mixer.init_args.weights.code of stage proxy"),
    ],
)
def test_the_stages_before_the_last_make_a_method(tmp_path, second, named):
    write_staged(tmp_path / "staged" / "seed_0", 0)
    write_staged(tmp_path / "staged" / "seed_1", 1, **second)
    if named is None:  # what stages give one another differs by seed: the references' paths
        assert len(compare([tmp_path], baseline="staged").methods[0].runs) == 2
        return
    with pytest.raises(UserError, match=f"(?s)runs of staged are not of one method: .*{named}"):
        compare([tmp_path], baseline="staged")


def test_one_text_cut_in_other_chunks_is_another_corpus(tmp_path):
    # No sequence spans two chunks, so that the validated sequences are others.
    curve = [(5.0, 5.0), (3.0, 3.0)]
    for name, chunks in (("uniform", "aa"), ("other", "bb"), ("older", None)):
        more = {"inputs": {"chunks": chunks}} if chunks else {}
        write_run(tmp_path / name / "seed_0", 0, curve, more_metadata=more)
    with pytest.raises(UserError, match=r"prepared corpus: chunks aa in .*chunks bb in"):
        compare([tmp_path / "uniform", tmp_path / "other"], "uniform")
    assert compare([tmp_path / "uniform", tmp_path / "older"], "uniform").methods


def write_with_inputs(folder, mixer="Stratified", **inputs):
    seed = int(folder.name.removeprefix("seed_"))
    write_run(folder, seed, [(5.0, 5.0)], mixer, more_metadata={"inputs": inputs})


def test_runs_from_other_pretrained_weights_do_not_compare(tmp_path):
    write_with_inputs(tmp_path / "uniform" / "seed_0", **{"pretrained model": "one"})
    write_with_inputs(tmp_path / "other" / "seed_0", "Temperature", **{"pretrained model": "two"})
    with pytest.raises(
        UserError, match=r"model: pretrained model two in .*other/seed_0; .* one in"
    ):
        compare([tmp_path])
    (_, note, *_) = compare([tmp_path], allowed=["model"]).notes
    assert "pretrained model two" in note


def test_seeds_by_other_reference_models_are_not_of_one_method(tmp_path):
    for seed, digest in enumerate(("one", "two")):
        write_with_inputs(tmp_path / "online" / f"seed_{seed}", **{"reference model": digest})
    with pytest.raises(UserError, match=r"online are not of one method: .*reference model one in"):
        compare([tmp_path])


def test_seeds_of_different_rounds_are_refused_with_the_key(tmp_path):
    for seed in (0, 1):
        write_experiment(tmp_path / "staged" / f"seed_{seed}", seed, [(3.0, 3.0)])
    folder = tmp_path / "staged" / "seed_1"
    shutil.copytree(folder / "proxy", folder / "proxy_round2")
    summary = json.loads((folder / "summary.json").read_text())
    summary["cost"]["stages"].insert(1, {"stage": "proxy_round2", "folder": "proxy_round2"})
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"proxy, main in .*seed_0; proxy, proxy_round2, main in"):
        compare([tmp_path])
    with pytest.raises(UserError, match=r"summary\.json.*\n.* set rounds\.tolerance to 0"):
        compare([tmp_path])

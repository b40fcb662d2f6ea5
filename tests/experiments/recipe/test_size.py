"""Recipes that would grow without end are refused at once."""

import time

import pytest

from dograph.errors import UserError
from dograph.experiments.recipe.compose import compose
from dograph.files.bounded_yaml import MOST_VALUES


def refused(tmp_path, text, match):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    begin = time.monotonic()
    with pytest.raises(UserError, match=match) as caught:
        compose(path)
    assert time.monotonic() - begin < 5
    assert "bomb.yaml" in str(caught.value)


def test_aliases_that_double_line_by_line(tmp_path):
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    refused(tmp_path, "\n".join(lines), "expansion exceeds the configured limit of 100000")


def test_interpolations_that_double_line_by_line(tmp_path):
    lines = ["a0: x"] + [f"a{n}: ${{a{n - 1}}}${{a{n - 1}}}" for n in range(1, 40)]
    refused(tmp_path, "\n".join(lines), "expands to more than")
    lines = ["a-0: x"] + [f"a-{n}: ${{a-{n - 1}}}${{ a-{n - 1} }}" for n in range(1, 40)]
    refused(tmp_path, "\n".join(lines), "expands to more than")
    lines = ["b:", "  a0: x"] + [f"  a{n}: ${{.a{n - 1}}}${{.a{n - 1}}}" for n in range(1, 40)]
    refused(tmp_path, "\n".join(lines), "expands to more than")


def test_an_interpolated_branch_counts_all_that_is_in_it(tmp_path):
    lines = ["a0: {x: 1, y: 2}"]
    lines += [f"a{n}: {{x: '${{a{n - 1}}}', y: '${{a{n - 1}}}'}}" for n in range(1, 40)]
    refused(tmp_path, "\n".join(lines), "expands to more than")


def test_all_keys_together_are_bounded(tmp_path):
    ones, names = ", ".join("1" * 300), ", ".join(["'${a}'"] * 300)
    lines = [f"a: [{ones}]", f"b: [{names}]", *(f"c{n}: ${{b}}" for n in range(400))]
    refused(tmp_path, "\n".join(lines), "expands to more")


def test_many_keys_are_checked_in_no_time(tmp_path):
    lines = ["a0: x"] + [f"a{n}: ${{a{n - 1}}} and some more words" for n in range(1, 40)]
    path = tmp_path / "many.yaml"
    path.write_text("\n".join(lines + [f"b{n}: ${{a0}}" for n in range(4000)]))
    begin = time.process_time()
    assert compose(path).values["b3999"] == "x"
    assert time.process_time() - begin < 5


def test_what_contains_itself(tmp_path):
    refused(tmp_path, "a: &a [*a]", "recursive aliases are not supported")
    refused(tmp_path, "a: ${b}\nb: ${a}", "refers to itself")
    refused(tmp_path, "a: {b: '${a}'}", "refers to itself")


def test_nesting_too_deep(tmp_path):
    for depth in (500, 100_000):
        text = "a: " + "[" * depth + "]" * depth
        refused(tmp_path, text, "levels deep|maximum nesting depth")


def test_files_too_large(tmp_path):
    refused(tmp_path, "a: " + "x" * 2_000_000, "larger than 1 MB")


def test_yaml_in_an_interpolation(tmp_path):
    for text in ("${oc.create:[1]}", "${oc.decode:x}", "${b.${a}}", "${b[0]}"):
        refused(tmp_path, f'b: [x]\na: "{text}"', "is not allowed in a recipe")


def test_tags_run_nothing(tmp_path):
    trap = tmp_path / "trapped"
    refused(tmp_path, f"a: !!python/object/apply:os.mkdir ['{trap}']", "cannot be read as YAML")
    assert not trap.exists()


def test_a_large_honest_recipe_passes(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text(
        "mixer: {class_path: a}\nweights:\n" + "".join(f"  d{n}: 1\n" for n in range(5000))
    )
    assert MOST_VALUES > 10_000
    assert len(compose(path).values["weights"]) == 5000


def test_honest_interpolations_resolve(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUS", "/data")
    path = tmp_path / "honest.yaml"
    path.write_text(
        "lr: 1\nmodel: {lr: '${lr}', peak: '${.lr}', deep: {lr: '${..lr}'}}\n"
        "source: ${oc.env:CORPUS}\nother: ${oc.env:NOWHERE,x}\n"
    )
    values = compose(path).values
    assert values["model"] == {"lr": 1, "peak": 1, "deep": {"lr": 1}}
    assert (values["source"], values["other"]) == ("/data", "x")


def test_a_part_of_a_recipe_lies_in_configs(tmp_path):
    for name in ("../../secret", "/etc/passwd", ".hidden"):
        refused(tmp_path, f"compose: {{data: '{name}'}}", "name a file in configs/")

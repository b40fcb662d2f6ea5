"""Names of untrusted files must not control a terminal."""

import pytest

from dograph.cli.main import main, printable

RED = "\x1b[31m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, äöü, 漢字 and 🙂", "plain, äöü, 漢字 and 🙂"),
        ("two\nlines\tand a tab", "two\nlines\\tand a tab"),
        (f"{RED}red\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("over\rwritten\x08\x7f\x9b31m", "over\\rwritten\\x08\\x7f\\x9b31m"),
        ("turned \u202e around \u2066", "turned \\u202e around \\u2066"),
        ("half \udcff a name", "half \\udcff a name"),
    ],
)
def test_control_characters_are_spelt_out(text, shown):
    assert printable(text) == shown


def test_names_and_keys_of_files_reach_the_terminal_spelt_out(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    for name, content in ((f"a{RED}.txt", "text"), ("web.jsonl", '{"\\u001b[31m": 1}\n')):
        folder = tmp_path / f"corpus_{len(name)}"
        folder.mkdir()
        (folder / name).write_text(content)
        recipe.write_text(f"corpus: {{source: {folder}, store: {tmp_path / 'store'}}}\n")
        assert main(["prepare", str(recipe)]) == 2
        shown = capsys.readouterr().err
        assert "\x1b" not in shown
        assert "\\x1b[31m" in shown, shown

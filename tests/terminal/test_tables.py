"""Tables keep names and numbers whole at every width."""

import io

import pytest
from rich.console import Console

from dograph.terminal.tables import as_html, screen_table

NAMES = ("a", "zeitungsartikel_aus_dem_letzten_jahrhundert", "[bold]docs", "漢字")
CELLS = ("33.8%", "12,345,678", "4.948 [4.932, 4.965]", "−0.007 ± 0.046")
HEADINGS = ("drawn", "tokens", "loss", "target less [b]'s, paired")


def shown(width, names=NAMES):
    table = screen_table("After 20 steps [x]", "domain", *HEADINGS, caption="seeds [1]")
    for name in names:
        table.add_row(name, *CELLS, style="bold" if name == "a" else None)
    table.add_section()
    table.add_row("mean", "", *CELLS[1:])
    screen = io.StringIO()
    Console(file=screen, width=width).print(table)
    return screen.getvalue()


@pytest.mark.parametrize("width", [28, 40, 53, 60, 80, 100, 150, 500])
def test_numbers_are_whole_and_no_line_is_too_long(width):
    text = shown(width)
    assert "…" not in text
    for cell in CELLS:
        assert " ".join(text.split()).count(cell) >= len(NAMES)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_names_that_fit_are_whole_and_others_keep_every_character(width):
    text = shown(width)
    for name in (*NAMES, "mean"):
        # A name wider than the screen goes on in the next line.
        assert name in text.replace("\n", "" if len(name) > width - 25 else "\n"), name


def test_a_wide_table_is_one_piece_and_a_narrow_one_has_the_names_in_each_piece():
    assert shown(200).count("domain") == 1
    narrow = shown(80)
    assert narrow.count("domain") > 1
    assert narrow.count("zeitungsartikel_aus_dem_letzten_jahrhundert") == narrow.count("mean ")


def test_brackets_are_no_markup():
    text = shown(200)
    for words in ("After 20 steps [x]", "seeds [1]", "target less [b]'s, paired", "[bold]docs"):
        assert words in text


@pytest.mark.parametrize("width", range(1, 200, 7))
def test_any_width_works(width):
    assert shown(width)


def test_a_notebook_s_table_has_every_cell_and_no_markup():
    table = screen_table("After <b>", "domain", "loss")
    table.add_row("<script>", "4.5")
    assert as_html(table) == (
        "<table><caption>After &lt;b&gt;</caption><thead><tr><th>domain</th><th>loss</th></tr>"
        "</thead><tbody><tr><td>&lt;script&gt;</td><td>4.5</td></tr></tbody></table>"
    )

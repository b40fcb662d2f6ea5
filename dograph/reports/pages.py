"""What HTML pages that need no other file share: their look, figures as SVG, pictures as PNG."""

from __future__ import annotations

import base64
import io
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dograph.reports.figures.appearance import QUIET_COLOUR, TEXT_COLOUR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE_VARIABLES = {"#333333": "black-line", "#882255": "wine-line", "#0072B2": "blue-line"}
VARIABLES = {TEXT_COLOUR: "ink", QUIET_COLOUR: "quiet", "#E6E6E6": "grid", **LINE_VARIABLES}
"""Colours that the page's style sheet gives another shade on a dark screen."""


def page_environment(package: str) -> Environment:
    """An environment of the templates in a package, which escapes all that it inserts.

    Its variable ``style`` is the style sheet of all pages.
    """
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (files("dograph.reports") / "page.css").read_text(encoding="utf-8")
    environment.globals["style"] = Markup(style)  # noqa: S704  (our own file)
    return environment


def inline_png(content: bytes) -> str:
    """A picture's content as the address of an image."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def inline_svg(figure: Figure, name: str) -> Markup:
    """A figure as SVG for a page of either theme: no background, ink by the page's variables.

    The name is the prefix of its ids, which another figure would have too.
    """
    import matplotlib

    file = io.StringIO()
    # Text stays text, for search and screen readers; ids come from the content alone.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dograph"}):
        nobody = {"Date": None, "Creator": None}
        figure.savefig(file, format="svg", transparent=True, metadata=nobody)
    text = file.getvalue()
    text = re.sub("<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', text, count=1)
    text = re.sub(r"<[a-z][^>]*>", lambda tag: _for_page(tag[0], name), text)
    return Markup(text)  # noqa: S704  (matplotlib has escaped the names)


def _for_page(tag: str, name: str) -> str:
    """A tag with the page's colours and the figure's ids; text between tags stays as it is."""
    for colour, variable in VARIABLES.items():
        tag = re.sub(re.escape(colour), f"var(--{variable})", tag, flags=re.IGNORECASE)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)

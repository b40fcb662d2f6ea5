"""An extension of Griffe: a docstring's doctests are shown as the examples that they are."""

import re
import textwrap

import griffe

DOCTESTS = re.compile(r"(?ms)^>>> .*?(?=\n\n(?!>>> )|\Z)")


class Doctests(griffe.Extension):
    """Puts doctests under a heading "Examples:", where Griffe looks for them."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Indent the doctests of an object's docstring."""
        if obj.docstring and "Examples:" not in obj.docstring.value:
            obj.docstring.value = DOCTESTS.sub(as_examples, obj.docstring.value)


def as_examples(doctests: re.Match[str]) -> str:
    """The same doctests as a section of the docstring."""
    return "Examples:\n" + textwrap.indent(doctests[0], "    ")

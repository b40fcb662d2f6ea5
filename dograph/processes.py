"""Python processes that this package starts."""

import sys


def python_words(code: str) -> list[str]:
    """A command that runs code of ours, and finds no module in the folder it happens to run in.

    Args:
        code: of Python.
    """
    # Python puts that folder, as an empty text, first; -P, which would not, came with 3.11.
    return [sys.executable, "-c", f"import sys; sys.path[:1] == [''] and sys.path.pop(0); {code}"]

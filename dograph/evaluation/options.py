"""Numbers that a user gives."""

from __future__ import annotations

from collections.abc import Mapping

from dograph.errors import check_range


def check_positive(numbers: Mapping[str, int | None]) -> None:
    """Checks that options that are given are positive.

    Args:
        numbers: by the options' names, without dashes before them. None: not given.

    Raises:
        UserError: for the first below 1.
    """
    for name, number in numbers.items():
        if number is not None:
            check_range(f"--{name}", number, at_least=1)

"""Numbers that a user gives."""

from __future__ import annotations

from collections.abc import Mapping

from dograph.errors import check_range


def check_positive(numbers: Mapping[str, int | None]) -> None:
    """Raises UserError for the first option below 1.

    Args:
        numbers: values by the options' names without dashes. None: not given.
    """
    for name, number in numbers.items():
        if number is not None:
            check_range(f"--{name}", number, at_least=1)

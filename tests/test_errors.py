"""Allocations that fail end with the keys that decide them."""

import pytest
import torch

from dograph.errors import UserError, check_range, memory_errors


def test_allocations_that_fail_name_what_to_lower():
    asked = r"can't allocate memory.*lower data\.batch_size"
    with pytest.raises(UserError, match=asked), memory_errors():
        torch.empty(2**50)
    with pytest.raises(UserError, match=r"out of memory"), memory_errors():
        bytes(2**60)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="another"), memory_errors():
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("value", "limits", "asked"),
    [
        (0, {"at_least": 1}, "≥ 1"),
        (float("nan"), {"at_least": 0}, "≥ 0"),
        (float("nan"), {"above": 0}, "> 0"),
        (0.0, {"above": 0}, "> 0"),
        (1, {"at_least": 0, "below": 1}, "≥ 0 and < 1"),
        (2, {"at_most": 1}, "≤ 1"),
    ],
)
def test_numbers_outside_their_range_are_refused(value, limits, asked):
    with pytest.raises(UserError, match=f"^data.key is {value}: it must be {asked}$"):
        check_range("data.key", value, **limits)


def test_numbers_inside_their_range_pass():
    check_range("data.key", 0, at_least=0, below=1)
    check_range("data.key", 1, above=0, at_most=1)

"""Allocations that fail end with the keys that decide them."""

import pytest
import torch

from dograph.errors import UserError, memory_errors


def test_allocations_that_fail_name_what_to_lower():
    asked = r"can't allocate memory.*lower data\.batch_size"
    with pytest.raises(UserError, match=asked), memory_errors():
        torch.empty(2**50)
    with pytest.raises(UserError, match=r"memory does not suffice"), memory_errors():
        bytes(2**60)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="another"), memory_errors():
        raise RuntimeError("another")

"""Records from JSON have the types and ranges of their fields, or are refused."""

import re
from dataclasses import asdict, dataclass
from typing import Literal

import pytest

from dograph.files.records import Count, from_dict


@dataclass(frozen=True)
class Part:
    name: str
    size: float | None


@dataclass(frozen=True)
class Whole:
    count: Count
    parts: tuple[Part, ...]
    losses: dict[str, float]
    split: Literal["train", "validation"] = "train"


WHOLE = Whole(3, (Part("a", 1.5), Part("b", None)), {"x": 2.0})


def test_a_record_is_read_back():
    assert from_dict(Whole, asdict(WHOLE)) == WHOLE
    assert from_dict(Part, {"name": "a", "size": 1}) == Part("a", 1.0)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", True, "count is True: it must be a whole number"),
        ("count", 1.5, "count is 1.5: it must be a whole number"),
        ("count", None, "count is None: it must be a whole number"),
        ("count", -1, "count is -1: it must be ≥ 0"),
        ("count", 2**61, f"count is {2**61}: it must be ≥ 0 and ≤"),
        ("parts", {}, "parts is {}: it must be a list"),
        ("parts", [1], r"parts[0] is 1: it must be an object"),
        ("parts", [{"name": 1, "size": 1}], "parts[0].name is 1: it must be text"),
        ("parts", [{"name": "a"}], "parts[0] lacks the key 'size'"),
        ("losses", {"x": "y"}, "losses['x'] is 'y': it must be a number"),
        ("losses", {"x": 10**400}, "losses['x'] is 1000"),
        ("losses", [], "losses is []: it must be an object"),
        ("split", "test", "split is 'test': it must be 'train' or 'validation'"),
        ("split", [], "split is []: it must be 'train' or 'validation'"),
        ("extra", 1, "the content has the unknown key 'extra'"),
    ],
)
def test_another_type_is_refused(key, value, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        from_dict(Whole, {**asdict(WHOLE), key: value})
    with pytest.raises(ValueError, match=r"recipe is \[1\]: it must be an object"):
        from_dict(Whole, [1], "recipe")

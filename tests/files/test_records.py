"""Records from JSON are of their types, or refused."""

from dataclasses import asdict, dataclass

import pytest

from dograph.files.records import from_dict


@dataclass(frozen=True)
class Part:
    name: str
    size: float | None


@dataclass(frozen=True)
class Whole:
    count: int
    parts: tuple[Part, ...]
    losses: dict[str, float]


WHOLE = Whole(3, (Part("a", 1.5), Part("b", None)), {"x": 2.0})


def test_a_record_is_read_back():
    assert from_dict(Whole, asdict(WHOLE)) == WHOLE
    assert from_dict(Part, {"name": "a", "size": 1}) == Part("a", 1.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", True),
        ("count", 1.5),
        ("count", None),
        ("parts", {}),
        ("parts", [1]),
        ("parts", [{"name": 1, "size": 1}]),
        ("losses", {"x": "y"}),
        ("losses", []),
        ("extra", 1),
    ],
)
def test_another_type_is_refused(key, value):
    with pytest.raises(TypeError):
        from_dict(Whole, {**asdict(WHOLE), key: value})
    with pytest.raises(TypeError):
        from_dict(Whole, [1])


def test_a_huge_number_is_no_float():
    with pytest.raises(OverflowError):
        from_dict(Part, {"name": "a", "size": 10**400})

"""Levels of domains' names, which are paths: ``web/news`` and ``web/forums`` are below ``web``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dograph.errors import UserError

SEPARATOR = "/"


def levels_of(domains: Sequence[str]) -> tuple[str, ...]:
    """The names above domains, e.g. ``web`` of ``web/news``, at any depth; in order.

    >>> levels_of(["books", "web/en/news", "web/en/wiki"])
    ('web', 'web/en')
    """
    return tuple(dict.fromkeys(above for name in domains for above in _above(name)))


def members(name: str, domains: Sequence[str]) -> tuple[str, ...]:
    """The domain of a name, or the domains below a level.

    >>> members("web", ["books", "web/news", "web2/wiki"])
    ('web/news',)
    """
    below = name + SEPARATOR
    return tuple(domain for domain in domains if domain == name or domain.startswith(below))


def at_level(domain: str, level: int) -> str:
    """A domain's name, cut to its first ``level`` parts.

    >>> at_level("web/en/news", 1), at_level("books", 2)
    ('web', 'books')
    """
    return SEPARATOR.join(domain.split(SEPARATOR)[:level])


def by_top_level(domains: Sequence[str]) -> dict[str, list[int]]:
    """Indices of the domains below each top level; a domain that is below none is left out.

    >>> by_top_level(["books", "web/news", "web/wiki"])
    {'web': [1, 2]}
    """
    below: dict[str, list[int]] = {}
    for index, name in enumerate(domains):
        if SEPARATOR in name:
            below.setdefault(at_level(name, 1), []).append(index)
    return below


def split_levels(
    weights: Mapping[str, float], domains: Sequence[str], sizes: Sequence[float] | None, key: str
) -> dict[str, float]:
    """Weights by domain, from weights by names of domains and levels; unknown names stay.

    Args:
        weights: a number for each name.
        domains: the S domain names.
        sizes: (S,) ≥ 0, by which a level's weight is shared out below it. None: evenly.
        key: what messages call the weights.

    Raises:
        UserError: for a domain that is named twice, by itself and by a level.

    >>> split_levels({"web": 0.9, "books": 0.1}, ["books", "web/a", "web/b"], [5, 1, 2], "weights")
    {'web/a': 0.3, 'web/b': 0.6, 'books': 0.1}
    """
    size = dict(zip(domains, sizes or [1.0] * len(domains), strict=True))
    given: dict[str, float] = {}
    for name, weight in weights.items():
        below = members(str(name), domains) or (name,)
        total = sum(size.get(domain, 0.0) for domain in below)
        for domain in below:
            if domain in given:
                raise UserError(
                    f"{key} names {domain} twice, by itself and by {name}, or two levels above it: "
                    "leave one out"
                )
            share = size.get(domain, 1.0) / total if total else 1 / len(below)
            given[domain] = weight if domain == name else float(weight) * share
    return given


def check_levels(domains: Sequence[str], where: str) -> None:
    """Raises UserError for a domain that is also a level of another; ``where`` names the source."""
    if both := sorted(set(domains) & set(levels_of(domains))):
        raise UserError(
            f"{where}: {both[0]} is a domain and a level above {members(both[0], domains)[1]}: "
            "rename one, or move its text below the level"
        )


def _above(domain: str) -> Iterator[str]:
    parts = domain.split(SEPARATOR)
    for depth in range(1, len(parts)):
        yield at_level(domain, depth)

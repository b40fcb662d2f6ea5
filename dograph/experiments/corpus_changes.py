"""In which domains a corpus differs from the one that a run recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dograph.data.corpus.store import Store, find_store
from dograph.errors import UserError
from dograph.experiments.provenance import domain_records

MOST_DOMAINS = 8
"""Domains that a message names."""


def corpus_changes(provenance: Mapping[str, Any], store: Store) -> str:
    """Domains that were added, removed, renamed or changed since a run, and documents of each.

    Args:
        provenance: of the run. Its own store tells single documents, as long as it exists.
        store: what the corpus is now.
    """
    before = _own_store(provenance)
    recorded = domain_records(before) if before else provenance.get("domains")
    if not isinstance(recorded, Mapping) or not all(isinstance(r, dict) for r in recorded.values()):
        return f"its store {provenance['corpus']} is gone, and it recorded no domains"
    changes = list(_changes(recorded, domain_records(store), before, store))
    if store.tokenizer_hash != provenance.get("tokenizer"):
        changes.append("the tokenizer is another one")
    if not changes:
        changes = ["the same documents stand in another order or are cut in other chunks"]
    more = len(changes) - MOST_DOMAINS
    return "; ".join(changes[:MOST_DOMAINS]) + (f"; and {more} more" if more > 0 else "")


def _own_store(provenance: Mapping[str, Any]) -> Store | None:
    path = find_store(Path(str(provenance["corpus"])), provenance["fingerprint"])
    try:
        store = Store.open(path) if path else None
    except UserError:
        return None
    return store if store and store.fingerprint == provenance["fingerprint"] else None


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], old: Store | None, new: Store
) -> Iterator[str]:
    added = [name for name in now if name not in before]
    for name in [name for name in before if name not in now]:
        hashes = before[name].get("hashes")
        renamed = next((other for other in added if now[other]["hashes"] == hashes), None)
        if renamed is None:
            yield f"{name} was removed"
        else:
            added.remove(renamed)
            yield f"{name} was renamed to {renamed}"
    for name in added:
        yield f"{name} was added ({now[name]['documents']:,} documents)"
    for name in [name for name in before if name in now]:
        if before[name].get("hashes") != now[name]["hashes"]:
            counts = f"{now[name]['documents']:,} documents, it had {before[name].get('documents')}"
            yield f"{name} has changed ({_documents(name, old, new) or counts})"


def _documents(name: str, old: Store | None, new: Store) -> str | None:
    """How many documents of a domain were added and removed; None without the old store."""
    if old is None:
        return None
    before, now = _hashes(old, name), _hashes(new, name)
    added, removed = np.setdiff1d(now, before).size, np.setdiff1d(before, now).size
    if added or removed:
        return f"{added:,} documents added, {removed:,} removed"
    return "the same documents, split or ordered otherwise"


def _hashes(store: Store, name: str) -> npt.NDArray[np.uint64]:
    splits = [store.document_hashes(name, split) for split in store.entry(name).splits()]
    return np.concatenate(splits)

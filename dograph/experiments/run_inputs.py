"""All that decides a run's numbers, and in what a recorded run differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dograph.data.corpus.manifest import SPLITS
from dograph.data.corpus.store import Store
from dograph.errors import UserError
from dograph.experiments.mixer_code import mixer_code
from dograph.experiments.provenance import latest_recipe, read_provenance
from dograph.experiments.recipe.keys import deciding
from dograph.files.atomic import read_mapping
from dograph.files.changes import Changes, flat, key_changes
from dograph.files.checksums import file_digest, json_digest
from dograph.files.run_dir import STAGE

UNKNOWN = "not recorded"
"""Stands for an input that an earlier version did not record."""
REFERENCE = "reference model"
"""Key of the digest of the file that ``mixer.init_args.reference`` names."""
PRETRAINED = "pretrained model"
"""Key of the digests of the files in the folder that ``model.pretrained`` names."""
STAGE_KEYS = ("stage", "digest", "finished")
"""Keys of a stage's record beside its inputs."""


@dataclass(frozen=True)
class RunInputs:
    """All that decides a run's numbers: a resolved recipe's values and a prepared corpus.

    Equal inputs give equal losses on one host with one version of the packages. These are no part
    of it: an upgrade makes no other run; what it changes is noted.
    """

    values: Mapping[str, Any]
    store: Store

    @cached_property
    def content(self) -> dict[str, Any]:
        """The inputs in JSON's types: for a digest, and to tell differences by."""
        code, reference = mixer_code(self.values), reference_digest(self.values)
        return {
            "values": deciding(self.values),
            "corpus": self.store.fingerprint,
            "chunks": chunks_digest(self.store),
            **({"mixer code": code} if code else {}),
            **({REFERENCE: reference} if reference else {}),
            **({PRETRAINED: pretrained} if (pretrained := pretrained_digest(self.values)) else {}),
        }

    @cached_property
    def digest(self) -> str:
        """Digest of the content."""
        return json_digest(self.content)

    def is_of(self, folder: Path) -> bool:
        """Whether the run in a folder has these inputs; not if they changed midway."""
        try:
            provenance = read_provenance(folder)
            if provenance.get("digest") == self.digest:
                return True
            is_of_one = provenance.get("digest") is not None  # of one recipe all the time
            return is_of_one and not self.changes_since(folder, provenance)
        except UserError:  # a missing or damaged file belongs to no run
            return False

    def changes_since(self, folder: Path, provenance: Mapping[str, Any]) -> Changes:
        """In what the recorded run in a folder differs, by dotted key.

        A run of an earlier version recorded no inputs; its record as a stage or its recipe tells
        them.
        """
        recorded = provenance.get("inputs") or stage_inputs(read_mapping(folder / STAGE)) or None
        if not isinstance(recorded, Mapping):
            code = {"mixer code": UNKNOWN} if "mixer code" in self.content else {}
            same_store = provenance.get("corpus") == str(self.store.path)
            recorded = {
                "values": deciding(latest_recipe(folder, provenance)),
                "corpus": provenance["fingerprint"],
                "chunks": self.content["chunks"] if same_store else UNKNOWN,
                **code,
            }
        return input_changes(recorded, self.content)


def input_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """In what two runs' recorded inputs differ, by dotted key.

    Those of an earlier version, without "chunks", are taken by today's rules: they kept keys that
    change no number, and the package's version.
    """
    if "chunks" not in before:
        earlier = {key: value for key, value in before.items() if key != "dograph"}
        before = {**earlier, "chunks": now.get("chunks")}
        if isinstance(values := before.get("values"), Mapping):
            before = {**before, "values": deciding(values)}
    for key in (REFERENCE, PRETRAINED):
        if key not in before and key in now:
            before = {**before, key: now[key]}
    changes = key_changes(flat(before), flat(now))
    return {key.removeprefix("values."): change for key, change in changes.items()}


def reference_digest(values: Mapping[str, Any]) -> str | None:
    """Digest of a reference model's file, whose path does not tell what it was made from.

    None without one; an earlier stage's stands in the values by the digest of its inputs.
    """
    arguments = (values.get("mixer") or {}).get("init_args") or {}
    path = Path(str(arguments.get("reference") or ""))
    return file_digest(path) if path.is_file() else None


def pretrained_digest(values: Mapping[str, Any]) -> str | None:
    """Digest of the weights in a local folder; None for none, or for a name on a hub."""
    named = (values.get("model") or {}).get("pretrained")
    weights = sorted(Path(str(named)).glob("*.safetensors")) if named else []
    return json_digest({path.name: file_digest(path) for path in weights}) if weights else None


def stage_inputs(record: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs in a stage's record, where earlier stages stand by their digests."""
    return {key: value for key, value in record.items() if key not in STAGE_KEYS}


def chunks_digest(store: Store) -> str:
    """Digest of how a store's tokens are cut in chunks, which no sequence spans.

    Other numbers of ``corpus.workers`` may cut the same text otherwise.
    """
    return json_digest(
        {
            f"{entry.name}/{split}": [chunk.dim for chunk in store.chunks(entry.name, split)]
            for entry in store.domains
            for split in SPLITS
            if split in entry.splits()
        }
    )

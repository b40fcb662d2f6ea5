"""Prepare a corpus: stage its documents, make the tokenizer, tokenise, finish the store."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from dograph.data.corpus.existing_store import (
    check_exists,
    inputs_digest,
    open_source_store,
    reopen,
    store_path,
)
from dograph.data.corpus.manifest import (
    MANIFEST,
    SPLITS,
    TOKENIZER,
    DomainEntry,
    Split,
    is_store,
)
from dograph.data.corpus.report import (
    ProgressBars,
    cap_warnings,
    closing_table,
    left_out_lines,
    round_trip_note,
    share_warnings,
)
from dograph.data.corpus.round_trip import (
    RoundTrip,
    RoundTripMeter,
    hardly_any_kept,
    measure_domains,
)
from dograph.data.corpus.settings import TRAIN_TOKENIZER, CorpusSettings
from dograph.data.corpus.source import Source, cap_bytes, open_source
from dograph.data.corpus.staging import StagedDomain, Staging
from dograph.data.corpus.store import Store, fingerprint
from dograph.data.corpus.tokenize_process import TokenizeProcess
from dograph.data.corpus.tokenize_worker import SplitJob, TokenisedSplit, TrainJob, marker_path
from dograph.data.corpus.tokenizer import (
    end_of_text,
    get_tokenizer,
    load,
    token_type,
    tokenizer_hash,
    vocabulary_size,
)
from dograph.data.corpus.work_dir import INPUTS, disk_errors, open_work_dir
from dograph.errors import UserError, file_errors
from dograph.files.atomic import flush, flush_tree
from dograph.files.checksums import file_digest, read_marker, write_verified
from dograph.files.home import expand_home
from dograph.files.lock import exclusive
from dograph.terminal.screen import Screen

TOKENIZER_MARKER = ".tokenizer.json"
"""Unlike any domain's marker."""


def prepare(settings: CorpusSettings, *, progress: bool = True) -> Store:
    """Make the store that the settings describe, or open it if it exists.

    The work happens in ``<store>.partial``, which becomes ``<store>`` in one step at the end. The
    next run resumes an interrupted one at the domain it had reached. A second run of the same store
    waits for the first. A source that is a prepared store is opened as it is.

    Args:
        settings: what to prepare and where.
        progress: whether to show progress bars, and the files that are left out of a store that
            was prepared before. The table of a new store is always printed, and so are settings
            that a prepared store as the source does not follow.

    Raises:
        UserError: if an input is missing, damaged, empty or not what the store was made from.
    """
    folder = expand_home(settings.source, "corpus.source")
    with file_errors(folder):
        if is_store(folder):
            return open_source_store(folder.absolute(), settings, ProgressBars(Screen(), progress))
        check_exists(folder, settings)
        source = open_source(settings)
        inputs = inputs_digest(source, settings)
        path = store_path(source.name, settings, inputs)
        bars = ProgressBars(Screen(), progress)
        if is_store(path) and not os.access(path.parent, os.W_OK):
            return reopen(path, inputs, source, bars)  # where no lock can be made
    return _build(path, inputs, source, settings, bars)


def _build(
    path: Path, inputs: str, source: Source, settings: CorpusSettings, bars: ProgressBars
) -> Store:
    """Build a store, unless another process does so first."""
    lock_file = path.with_name(path.name + ".lock")
    waiting = f"another run is preparing {path}: waiting for it"
    with disk_errors(path), exclusive(lock_file, lambda: bars.note(waiting)) as lock:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            return reopen(path, inputs, source, bars)
        work_dir = open_work_dir(path, inputs)
        if not (work_dir / MANIFEST).exists():
            with bars.progress:
                _Build(work_dir, source, settings, bars, lock).run(inputs)
        _finish(work_dir, path)
    store = Store.open(path)
    bars.console.print(closing_table(store))
    lines = [
        *left_out_lines(store.domains, store.left_out),
        *cap_warnings(store),
        *share_warnings(store, settings.validation_fraction),
        round_trip_note(store),
    ]
    for line in lines:
        bars.console.print(line, highlight=False, markup=False, soft_wrap=True)
    return store


@dataclass
class _Build:
    """The steps of one run, in a folder that may hold an earlier run's work."""

    folder: Path
    source: Source
    settings: CorpusSettings
    bars: ProgressBars
    lock: int

    def run(self, inputs: str) -> None:
        """Do the work that is left, and write the manifest."""
        process = TokenizeProcess(self.folder / "tokenise.log", self.lock)
        with contextlib.closing(process):
            originals, derived = self._stage()
            tokenizer = self._tokenizer(process, originals)
            domains = sorted([*originals, *derived], key=lambda domain: domain.name)
            round_trips = self._round_trips(domains)
            self._tokenise(process, domains, tokenizer)
        self._manifest(domains, tokenizer, round_trips, inputs)

    def _stage(self) -> tuple[list[StagedDomain], list[StagedDomain]]:
        """Stage the source's domains, then those derived from them."""
        source, staged, derived = self.source, [], []
        caps = {name: cap_bytes(source, name, self.settings) for name in source.domains()}
        known = [cap for cap in caps.values() if cap is not None]
        total = sum(known) if len(known) == len(caps) else None
        staging = Staging(self.folder, self.settings.validation_fraction)
        with contextlib.closing(staging):
            with self.bars.step("stage", total) as advance:
                for name, cap in caps.items():
                    text = functools.partial(source.documents, name), cap, source.where(name)
                    staged.append(staging.domain(name, *text, advance))
            origins = {domain.name: domain for domain in staged}
            for name, made in self.settings.derivations().items():
                with self.bars.step(f"derive {name}", None) as advance:
                    derived.append(staging.derived(name, made, origins[made.origin], advance))
        return staged, derived

    def _tokenizer(self, process: TokenizeProcess, domains: list[StagedDomain]) -> Tokenizer:
        path = self.folder / TOKENIZER
        marker = self.folder / "tokenised" / TOKENIZER_MARKER
        if not path.exists() or read_marker(marker) != {TOKENIZER: file_digest(path)}:
            beside = path.with_suffix(".new")
            with self.bars.step("tokenizer", None):
                if self.settings.tokenizer == TRAIN_TOKENIZER:
                    size = self.settings.vocab_size
                    process.train(TrainJob(str(self.folder), domains, size, str(beside)))
                else:
                    tokenizer = get_tokenizer(self.settings.tokenizer)
                    end_of_text(tokenizer)
                    # Not by its own `save`, which raises a bare Exception if the disk is full.
                    beside.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
            beside.replace(path)
            write_verified(marker, {TOKENIZER: file_digest(path)})
        return load(path)

    def _round_trips(self, domains: list[StagedDomain]) -> dict[str, RoundTrip]:
        """What the tokenizer keeps of a sample of each domain; refuse one that keeps hardly any."""
        tokenizer = load(self.folder / TOKENIZER)
        with self.bars.step("round trip", None) as advance:
            meter = RoundTripMeter(tokenizer, end_of_text(tokenizer))
            round_trips = measure_domains(meter, self.folder, domains, advance)
        if problem := hardly_any_kept(round_trips):
            raise UserError(
                f"corpus.tokenizer is {self.settings.tokenizer}, {problem}: choose one made for "
                "such text, or 'train'"
            )
        return round_trips

    def _tokenise(
        self, process: TokenizeProcess, domains: list[StagedDomain], tokenizer: Tokenizer
    ) -> None:
        jobs, total = [], 0
        for domain in domains:
            for split in SPLITS:
                job = self._job(domain, split, tokenizer)
                marker = marker_path(self.folder, domain.name, split)
                if job.parts and TokenisedSplit.read(marker) is None:
                    jobs.append(job)
                    total += domain.split(split).bytes
        begin = time.monotonic()
        with self.bars.step("tokenise", total) as advance:
            process.run(self.folder, jobs, advance)
        seconds = time.monotonic() - begin
        self.bars.note(
            f"tokenised {total / 1e6:.1f} MB in {seconds:.1f} s: {total / 1e6 / seconds:.1f} MB/s"
        )

    def _job(self, domain: StagedDomain, name: Split, tokenizer: Tokenizer) -> SplitJob:
        split = domain.split(name)
        return SplitJob(
            folder=str(self.folder),
            domain=domain.name,
            split=name,
            parts=split.parts,
            documents=split.documents,
            hashes=split.hashes,
            token_type=token_type(vocabulary_size(tokenizer)),
            end_of_text=end_of_text(tokenizer),
            workers=self.settings.workers,
        )

    def _manifest(
        self,
        domains: list[StagedDomain],
        tokenizer: Tokenizer,
        round_trips: dict[str, RoundTrip],
        inputs: str,
    ) -> None:
        hash_of_tokenizer = tokenizer_hash(tokenizer)
        files = {TOKENIZER: file_digest(self.folder / TOKENIZER)}
        entries, derivations = [], self.settings.derivations()
        for domain in domains:
            train, validation = (self._tokenised(domain, split) for split in SPLITS)
            files |= train.files | validation.files
            documents = domain.train.documents, domain.validation.documents
            tokens = train.tokens, validation.tokens
            counts = (*documents, *tokens, domain.train.bytes)
            entries.append(
                DomainEntry(
                    domain.name,
                    *counts,
                    derivations.get(domain.name),
                    domain.left_out,
                    domain.validation.bytes,
                    round_trips[domain.name],
                )
            )
        names = [domain.name for domain in domains]
        Store(
            path=self.folder,
            domains=tuple(entries),
            vocab_size=vocabulary_size(tokenizer),
            tokenizer_hash=hash_of_tokenizer,
            fingerprint=fingerprint(self.folder, hash_of_tokenizer, names),
            end_of_text=end_of_text(tokenizer),
            token_type=token_type(vocabulary_size(tokenizer)),
            inputs=inputs,
            files=files,
            left_out=self.source.left_out,
        ).write_manifest()

    def _tokenised(self, domain: StagedDomain, split: Split) -> TokenisedSplit:
        if not domain.split(split).parts:
            return TokenisedSplit(0, {})
        tokenised = TokenisedSplit.read(marker_path(self.folder, domain.name, split))
        if tokenised is None:
            raise RuntimeError(f"{self.folder}: {domain.name}'s {split} split was not tokenised")
        return tokenised


def _finish(work_dir: Path, path: Path) -> None:
    """Delete what only the making needed, and give the folder its name."""
    for entry in work_dir.iterdir():
        if entry.is_dir() and entry.name != "domains":
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.is_file() and entry.name not in (MANIFEST, TOKENIZER, INPUTS):
            entry.unlink()
    flush_tree(work_dir)
    work_dir.replace(path)
    # Only now: without it, an interrupted run's folder would not be recognised.
    (path / INPUTS).unlink()
    flush(path.parent)

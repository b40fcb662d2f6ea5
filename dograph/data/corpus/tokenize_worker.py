"""Train the tokenizer, and tokenise parts to litdata folders, in a process of its own.

``litdata.optimize`` takes over the process that calls it: it seeds ``random``, NumPy and torch,
replaces the start method of multiprocessing and the handler of Ctrl-C, empties its cache folders,
and waits for ever if a worker is killed. This process does nothing else, and has no other threads
at work, so that its workers can be forked safely: importing torch anew in each of two workers per
domain and split would take longer than tokenising.

`main`, run in a fresh interpreter, reads one JSON object a line from its standard input, a
`TrainJob` or `SplitJob`s, and writes one JSON line per finished part, finished request and failure
to its standard output. Ctrl-C kills it, while the libraries' own code would make a user wait.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import active_children, get_context
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from dograph.data.corpus.chunks import INDEX, TokenType, write_document_ends, write_index
from dograph.data.corpus.dedup import start_again
from dograph.data.corpus.manifest import TOKENIZER, Split, split_folder
from dograph.data.corpus.staging import StagedDomain, part_path, read_part
from dograph.data.corpus.tokenizer import sample, train
from dograph.errors import UserError, quoted_user_error
from dograph.files.checksums import file_digest, read_marker, write_verified
from dograph.files.records import Count, from_dict

CHUNK_BYTES = 32 * 2**20
BATCH = 8
"""Documents that the tokenizer gets at once: more are not quicker, and take more memory."""
_POLL_SECONDS = 0.5
_LONGEST_ERROR = 2_000
"""Characters of an error's end; a longer write to a pipe might be mixed with another's."""


@dataclass(frozen=True)
class TrainJob:
    """A tokenizer to be trained."""

    folder: str
    """The store in the making."""
    domains: list[StagedDomain]
    vocab_size: int
    output: str
    """File to write."""


@dataclass(frozen=True)
class SplitJob:
    """One split of one domain to be tokenised."""

    folder: str
    """The store in the making."""
    domain: str
    split: Split
    parts: int
    documents: int
    hashes: str
    """Digest of the documents' hashes."""
    token_type: TokenType
    end_of_text: int
    workers: int

    @property
    def output(self) -> Path:
        """The litdata folder."""
        return Path(self.folder, split_folder(self.domain, self.split))

    @property
    def staged(self) -> Path:
        """The folder of the parts."""
        return Path(self.folder, "staged", self.domain, self.split)


def marker_path(folder: Path, domain: str, split: Split) -> Path:
    """The file whose presence in a store in the making says that a split is done."""
    # No domain's name holds a %.
    return folder / "tokenised" / f"{domain.replace('/', '%')}.{split}.json"


@dataclass(frozen=True)
class TokenisedSplit:
    """Contents of a split's marker."""

    tokens: Count
    files: dict[str, str]
    """Digests of its files, by their paths within the store."""

    @classmethod
    def read(cls, marker: Path) -> TokenisedSplit | None:
        """Read a marker; None if it is missing or damaged: the split is then redone."""
        try:
            return from_dict(cls, read_marker(marker))
        except ValueError:
            return None


def train_tokenizer(job: TrainJob, messages: int) -> None:
    """Train in a process of its own: the trainer's threads must not be here when workers fork."""
    child = get_context("fork").Process(target=_train, args=(job, messages))
    child.start()
    child.join()


def _train(job: TrainJob, messages: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    with _reported(messages):
        tokenizer = train(job.vocab_size, sample(Path(job.folder), job.domains))
        # Not by its own `save`, which raises a bare Exception if the disk is full.
        Path(job.output).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        send(messages, {"finished": True})


class PartTokenizer:
    """Turns a part's number into its documents' tokens, each ended by the end of text."""

    def __init__(self, job: SplitJob, messages: int) -> None:
        self._job = job
        self._messages = messages
        self._tokenizer: Tokenizer | None = None

    def __call__(self, number: int) -> Iterator[np.ndarray]:
        """Yield one array per document, in the part's order."""
        if self._tokenizer is None:
            Finalize(None, _end_children, exitpriority=0)
            self._tokenizer = Tokenizer.from_file(str(Path(self._job.folder, TOKENIZER)))
            # Text that spells a special token, as tokenizers' own sources do, stays text.
            self._tokenizer.encode_special_tokens = True
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        size = 0
        texts = read_part(part_path(self._job.staged, number))
        while batch := list(itertools.islice(texts, BATCH)):
            for encoding in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                yield self._ended(encoding.ids)
            size += sum(len(text.encode()) for text in batch)
        send(self._messages, {"bytes": size})

    def _ended(self, ids: list[int]) -> np.ndarray:
        tokens = np.array([*ids, self._job.end_of_text], dtype=self._job.token_type)
        inside = tokens[:-1] == self._job.end_of_text
        # A vocabulary may hold the end of text as an ordinary token; it would end the document.
        return np.concatenate([tokens[:-1][~inside], tokens[-1:]]) if inside.any() else tokens


def _end_children() -> None:
    """End a worker's children: litdata's last write may fail before it has told its child to end.

    The worker would wait for that child, and this process for the worker, for ever.
    """
    for child in active_children():
        child.terminate()


def tokenise_split(job: SplitJob, messages: int) -> None:
    """Write the litdata folder and the document ends of one split, then its marker."""
    # Imported here: only this process needs torch.
    from litdata import TokensLoader, optimize

    shutil.rmtree(job.output, ignore_errors=True)
    job.output.mkdir(parents=True)
    optimize(
        fn=PartTokenizer(job, messages),
        inputs=list(range(job.parts)),
        output_dir=str(job.output),
        chunk_bytes=CHUNK_BYTES,
        num_workers=min(job.workers, job.parts),
        item_loader=TokensLoader(),
        reorder_files=False,
        keep_data_ordered=True,
        start_method="fork",
        verbose=False,
    )
    _copy_hashes(job)
    chunks = write_index(job.output, job.token_type, job.documents, start_again(Path(job.folder)))
    tokens = write_document_ends(job.output, chunks, job.token_type)
    # Digests are made now, while the files are still in memory.
    paths = [job.output / name for name in (INDEX, *(chunk.filename for chunk in chunks))]
    paths += [job.output.with_suffix(ending) for ending in (".ends", ".hashes")]
    files = {path.relative_to(job.folder).as_posix(): file_digest(path) for path in paths}
    marker = marker_path(Path(job.folder), job.domain, job.split)
    write_verified(marker, asdict(TokenisedSplit(tokens, files)))


def _copy_hashes(job: SplitJob) -> None:
    staged, copied = job.staged / "hashes", job.output.with_suffix(".hashes")
    remedy = start_again(Path(job.folder))
    if not staged.is_file():
        raise UserError(f"{staged}: missing: {remedy}")
    shutil.copyfile(staged, copied)
    if file_digest(copied) != job.hashes:
        raise UserError(f"{staged}: damaged: {remedy}")


def send(messages: int, value: dict[str, Any]) -> None:
    """Write one line; so short a write to a pipe is not mixed with another process's."""
    os.write(messages, json.dumps(value).encode() + b"\n")


def isolate() -> int:
    """Keep standard output for messages and litdata to itself; return the messages' descriptor."""
    messages = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"
    # Each worker is one process on one core; threads would only compete.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return messages


def end_group() -> None:
    """End this process with all it started: litdata leaves helpers behind when a worker fails."""
    os.killpg(0, signal.SIGKILL)


def watch(owner: int, messages: int) -> None:
    """In a thread, end everything when the owner is gone or a worker was killed."""
    workers: set[Any] = set()
    while os.getppid() == owner:
        time.sleep(_POLL_SECONDS)
        workers |= set(active_children())
        killed = [worker.exitcode for worker in workers if worker.exitcode not in (None, 0)]
        workers = {worker for worker in workers if worker.exitcode is None}
        if killed:
            time.sleep(4 * _POLL_SECONDS)  # litdata ends its workers on an error it then reports
            send(messages, {"failed": f"a tokenising process ended with code {killed[0]}"})
            break
    end_group()


@contextmanager
def _reported(messages: int) -> Iterator[None]:
    """Send an error in the block, then end all: its text goes not to the log.

    The log may be on the full disk that is the error.
    """
    try:
        yield
    except Exception:
        text = traceback.format_exc()
        send(messages, {"failed": text[-_LONGEST_ERROR:], "user_error": quoted_user_error(text)})
        end_group()


def main() -> None:
    """Do what the lines of standard input ask for, until it ends."""
    owner = os.getppid()
    messages = isolate()
    from litdata import optimize  # noqa: F401 — while the documents are being staged

    threading.Thread(target=watch, args=(owner, messages), daemon=True).start()
    for line in sys.stdin:
        request = json.loads(line)
        with _reported(messages):
            if "train" in request:
                train_tokenizer(from_dict(TrainJob, request["train"]), messages)
            else:
                _tokenise(request, messages)


def _tokenise(request: dict[str, Any], messages: int) -> None:
    # litdata empties its cache folders, so it gets its own.
    scratch = Path(request["folder"], "litdata")
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(scratch / "chunks")
    os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = str(scratch / "data")
    for job in request["jobs"]:
        tokenise_split(SplitJob(**job), messages)
    send(messages, {"finished": True})

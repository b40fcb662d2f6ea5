"""The tokenizer: trained on the staged text or loaded; its hash and end of text."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dograph.data.corpus.chunks import TokenType
from dograph.data.corpus.settings import GPT2_TOKENIZER
from dograph.data.corpus.staging import StagedDomain, spread
from dograph.errors import UserError
from dograph.files.checksums import json_digest
from dograph.files.home import expand_home

END_OF_TEXT = "<|endoftext|>"
KNOWN_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "[SEP]")
SAMPLE_BYTES = 8_000_000
"""Bytes of text to learn a vocabulary from, the same share from each domain."""
SAMPLE_PARTS = 32
"""Parts of a domain over which the sample is spread."""
LONGEST_WORD = 500
"""Characters of a word to learn from: the trainer's time grows with the square of a word's length.
Longer ones, e.g. of DNA or base64, are cut."""
_BLANK = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
"""Unicode's white space, by which the pre-tokenizer parts words; Python's has some more."""
_LONG_RUN = re.compile(
    f"(?<![^{_BLANK}])[^{_BLANK}]{{{LONGEST_WORD},}}|(?<![{_BLANK}])[{_BLANK}]{{{LONGEST_WORD},}}"
)
"""Holds every long word: words are of blanks, or of other characters after at most one blank."""


def get_tokenizer(choice: str) -> Tokenizer:
    """Load or fetch the tokenizer that the choice, ``corpus.tokenizer``, names."""
    if choice != GPT2_TOKENIZER:
        return load(expand_home(choice, "corpus.tokenizer"))
    try:
        return Tokenizer.from_pretrained(choice)
    except Exception as error:  # whatever the hub's client raises, the remedy is the same
        raise UserError(
            f"corpus.tokenizer is '{choice}', which cannot be fetched from the hub "
            f"({type(error).__name__}): connect, or give the path of its tokenizer.json, or 'train'"
        ) from error


def load(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json``; a UserError if it is missing, no tokenizer, or draws at random."""
    if not path.is_file():
        raise UserError(
            f"tokenizer {path} is not a file: set corpus.tokenizer to 'train', 'gpt2' or the path "
            "of a tokenizer.json"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(
            f"tokenizer {path} cannot be read ({error}): it must be a tokenizer.json written by "
            "the tokenizers library"
        ) from error
    if dropout := getattr(tokenizer.model, "dropout", None):
        raise UserError(
            f"tokenizer {path}: model.dropout is {dropout}, so that the same text becomes other "
            "tokens each time: set it to null in a copy of the file"
        )
    return tokenizer


def train(vocab_size: int, texts: Iterator[str]) -> Tokenizer:
    """Learn a byte-level BPE of at most ``vocab_size`` tokens; id 0 is the end of text.

    The same texts give the same vocabulary, whatever the number of cores. The time grows in
    proportion to the text, since words of more than ``LONGEST_WORD`` characters are cut.
    """
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pieces = itertools.chain.from_iterable(cut_long_words(text, words) for text in texts)
    tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer


def cut_long_words(text: str, words: pre_tokenizers.PreTokenizer) -> Iterable[str]:
    """Cut a text within its words of more than ``LONGEST_WORD`` characters; most have none."""
    cuts = [0]
    for run in _LONG_RUN.finditer(text):
        for _, (start, end) in words.pre_tokenize_str(run.group()):
            cuts += range(run.start() + start + LONGEST_WORD, run.start() + end, LONGEST_WORD)
    return [text[start:end] for start, end in itertools.pairwise([*cuts, len(text)])]


def sample(folder: Path, domains: list[StagedDomain]) -> Iterator[str]:
    """Yield documents to learn a vocabulary from, evenly from all domains and parts of each."""
    share = SAMPLE_BYTES // len(domains)
    for domain in domains:
        yield from spread(folder, domain, "train", share, SAMPLE_PARTS)


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Hexadecimal hash of everything that decides the tokens: not of truncation and padding."""
    parts = json.loads(tokenizer.to_str())
    for runtime_setting in ("truncation", "padding"):
        parts.pop(runtime_setting, None)
    return json_digest(parts)


def end_of_text(tokenizer: Tokenizer) -> int:
    """The id of the token that ends each document; a UserError if the vocabulary has none."""
    for token in KNOWN_ENDS:
        number = tokenizer.token_to_id(token)
        if number is not None:
            return int(number)
    raise UserError(
        f"corpus.tokenizer has no end-of-text token: add one of {list(KNOWN_ENDS)} to its "
        "added_tokens"
    )


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id: the rows that an embedding needs."""
    return int(max(itertools.chain(tokenizer.get_vocab(with_added_tokens=True).values(), (0,)))) + 1


def token_type(vocab_size: int) -> TokenType:
    """NumPy's name of the stored integers: of two bytes if the vocabulary fits."""
    return "uint16" if vocab_size <= 2**16 else "int32"

"""Damaged and forged stores: refused with the file's name, or read as if nothing had happened.

They alone protect from damage that nobody thought of: it is drawn at random, over all bytes.
"""

import shutil
from collections import Counter

import pytest
from mutations import (
    CONTEXT,
    DAMAGE,
    FORGERIES,
    at_most,
    everything,
    forge_bytes,
    same,
)

import dograph.data.corpus.staging
from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.corpus.store import Store
from dograph.data.domains import Documents, DomainSequences
from dograph.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LONGEST = 20
"""Seconds that a reader of a small store may take."""


@pytest.fixture(scope="module")
def original(corpus_folder, tmp_path_factory):
    """A store whose splits have two chunks each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dograph.data.corpus.staging, "PART_BYTES", 4000)
        place = tmp_path_factory.mktemp("stores") / "original"
        settings = CorpusSettings(
            source=str(corpus_folder), vocab_size=300, store=str(place), validation_fraction=0.2
        )
        store = prepare(settings, progress=False)
    assert all(len(store.chunks(entry.name, "train")) == 2 for entry in store.domains)
    return store


def outcome(place, expected):
    """ "refused", "harmless", or what went wrong."""
    try:
        with at_most(LONGEST):
            content = everything(place)
    except UserError as error:
        return "refused" if str(place) in str(error) else f"no file named: {error}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}"
    return "harmless" if same(content, expected) else "other data"


def try_all(kinds, count, original, chance, tmp_path):
    """Outcomes of so many stores, each changed in one way."""
    expected, outcomes, wrong = everything(original.path), Counter(), []
    for number in range(count):
        place = tmp_path / str(number) / "store"
        shutil.copytree(original.path, place)
        what = kinds[number % len(kinds)](place, chance)
        result = outcome(place, expected)
        outcomes[result if result in ("refused", "harmless") else "else"] += 1
        if result not in ("refused", "harmless"):
            wrong.append(f"{what}: {result[:500]}")
        shutil.rmtree(place.parent)
    print(
        f"\n{count} mutated stores: {outcomes['refused']} refused, {outcomes['harmless']} "
        f"harmless, {len(wrong)} else"
    )
    assert not wrong, "\n".join(wrong)
    return outcomes


def test_damage_is_found(original, chance, tmp_path):
    """No byte of a store is read that its digests do not cover."""
    outcomes = try_all(DAMAGE, 150, original, chance, tmp_path)
    # Every byte is sealed.
    assert outcomes["harmless"] == 0


def test_forgeries_do_no_harm(original, chance, tmp_path):
    """Manifests, indices and tokenizers that digests cover and no dograph wrote."""
    outcomes = try_all(FORGERIES, 300, original, chance, tmp_path)
    assert outcomes["refused"] >= 100


def test_forged_tokens_stay_inside_the_vocabulary(original, chance, tmp_path):
    """Tokens and ends of a stranger are what they are; only their range is held."""
    refused = 0
    for number in range(60):
        place = tmp_path / str(number) / "store"
        shutil.copytree(original.path, place)
        what = forge_bytes(place, chance)
        try:
            with at_most(LONGEST):
                for tokens, touched, texts, _ in everything(place).values():
                    assert max(tokens.max(), texts.max()) < original.vocab_size, what
                    assert touched.min() >= 0
        except UserError as error:
            assert str(place) in str(error), what
            refused += 1
        shutil.rmtree(place.parent)
    print(f"\n60 stores with forged bytes: {refused} refused, {60 - refused} within range")
    assert refused > 10


def test_damage_after_the_store_was_opened_is_found(original, chance, tmp_path):
    """Opened, in part read, then damaged: what is read afterwards is right, or refused."""
    expected, outcomes = everything(original.path), Counter()
    for number in range(150):
        place = tmp_path / str(number) / "store"
        shutil.copytree(original.path, place)
        store = Store.open(place)
        entry, split = chance.choice(store.domains), chance.choice(["train", "validation"])
        tokens, _, texts, _ = expected[entry.name, split]
        what = DAMAGE[number % len(DAMAGE)]
        try:
            with at_most(LONGEST):
                sequences = DomainSequences(store, entry.name, split, CONTEXT)
                documents = Documents(store, entry.name, split)
                for index in chance.sample(range(len(sequences)), chance.randrange(5)):
                    assert (sequences[index] == tokens[index]).all()
                what = what(place / "domains" / entry.name, chance)
                for index in range(len(sequences)):
                    assert (sequences[index] == tokens[index]).all(), what
                text = [token for index in range(len(documents)) for token in documents[index]]
                assert text == texts.tolist(), what
            outcomes["harmless"] += 1
        except UserError as error:
            assert str(place) in str(error), what
            outcomes["refused"] += 1
        shutil.rmtree(place.parent)
    print(f"\n150 stores damaged while open: {dict(outcomes)}")
    assert outcomes["refused"] > 10

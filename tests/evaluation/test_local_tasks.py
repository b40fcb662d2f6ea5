"""The local suite: right answers are the corpus' own, wrong ones are not; the seed decides."""

import json
import re

import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from dograph.data.corpus.prepare import prepare
from dograph.data.corpus.settings import CorpusSettings
from dograph.data.domains import Documents
from dograph.errors import UserError
from dograph.evaluation.local_examples import DomainExamples
from dograph.evaluation.local_tasks import MARK, write_local_tasks

CONTEXT = 64


def texts(store, domain, split="validation"):
    documents = Documents(store, domain, split)
    return [store.tokenizer().decode(documents[i].tolist()) for i in range(len(documents))]


def read(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def suite(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    notes = []
    names = write_local_tasks(store, folder, CONTEXT, 20, 0, notes.append)
    return folder, names, notes


def test_every_domain_has_both_tasks(suite):
    _, names, notes = suite
    kinds = ("local_cloze", "local_continuation")
    assert set(names) == {f"{kind}_{d}" for kind in kinds for d in ("animals", "code", "numbers")}
    assert notes == []


def test_a_cloze_is_the_next_word_of_a_validation_document(store, suite):
    folder, _, _ = suite
    documents = texts(store, "numbers")
    for example in read(folder, "local_cloze_numbers"):
        whole = example["context"] + example["target"]
        assert whole in documents[example["document"]]
        assert example["target"][0] == " "
        assert example["target"][1:].isalnum()
        assert not example["context"][-1].isspace()
        assert len(store.tokenizer().encode(whole).ids) <= CONTEXT


def test_one_choice_is_the_true_continuation_and_the_others_are_other_documents(store, suite):
    folder, _, _ = suite
    documents = texts(store, "code")
    encode = store.tokenizer().encode
    labels = set()
    for example in read(folder, "local_continuation_code"):
        context, label = example["context"], example["label"]
        own = documents[example["document"]]
        lengths = set()
        for index, choice in enumerate(example["choices"]):
            assert (context + choice in own) is (index == label)
            assert any(choice in text for text in documents)
            whole = len(encode(context + choice).ids)
            assert whole <= CONTEXT
            lengths.add(whole - len(encode(context).ids))
        assert lengths == {CONTEXT // 4}
        assert len(set(example["choices"])) == 4
        labels.add(label)
    assert len(labels) > 1


def test_nothing_comes_from_training_documents(store, suite):
    folder, _, _ = suite
    for domain in ("animals", "numbers", "code"):
        trained = texts(store, domain, "train")
        examples = read(folder, f"local_cloze_{domain}")
        # Shorter ones are in training text by chance: its sentences are of 14 words or so.
        long = [e["context"] + e["target"] for e in examples if len(e["context"].split()) >= 8]
        assert len(long) >= 5
        assert not any(context in text for context in long for text in trained)


def test_the_seed_decides_the_examples(store, suite, tmp_path):
    folder, _, _ = suite

    def written(seed):
        write_local_tasks(store, tmp_path / str(seed), CONTEXT, 20, seed)
        return read(tmp_path / str(seed), "local_continuation_code")

    first = read(folder, "local_continuation_code")
    assert written(0) == first
    assert written(1) != first


def test_an_earlier_suite_is_replaced_whole_and_nothing_else(store, tmp_path):
    folder = tmp_path / "tasks"
    names = write_local_tasks(store, folder, CONTEXT, 2)
    (folder / "local_cloze_gone.yaml").write_text("task: local_cloze_gone")
    (folder / "local_mine.yaml").write_text("task: local_mine")
    with (folder / MARK).open("a") as mark:
        mark.write("\nlocal_cloze_gone.yaml\n../outside.yaml")
    (tmp_path / "outside.yaml").touch()
    assert write_local_tasks(store, folder, CONTEXT, 2, 1) == names
    assert {path.stem for path in folder.glob("*.yaml")} == {*names, "local_mine"}
    assert (tmp_path / "outside.yaml").is_file()
    task = yaml.safe_load((folder / f"{names[0]}.yaml").read_text())
    assert task["metadata"]["corpus"] == store.fingerprint
    assert task["metadata"]["seed"] == 1


def test_a_folder_of_the_users_is_left_alone(store, tmp_path):
    (tmp_path / "local_notes.jsonl").write_text("mine")
    with pytest.raises(UserError, match="files that are not local tasks"):
        write_local_tasks(store, tmp_path, CONTEXT, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["local_notes.jsonl"]
    with pytest.raises(UserError, match="--task-folder"):
        write_local_tasks(store, tmp_path / "local_notes.jsonl", CONTEXT, 2)


def test_documents_are_chosen_by_their_length(store, monkeypatch):
    documents = Documents(store, "numbers", "validation")
    lengths = [len(documents[i]) for i in range(len(documents))]
    shortest = sorted(lengths)[len(lengths) // 2]
    monkeypatch.setattr("dograph.evaluation.local_examples.LEAST_BEFORE", shortest - 2 * 32)
    drawn = DomainExamples(store, "numbers", 4 * shortest, 0)
    assert drawn.eligible == [i for i, length in enumerate(lengths) if length >= shortest]
    monkeypatch.setattr("dograph.evaluation.local_examples.LEAST_BEFORE", shortest + 1 - 2 * 32)
    fewer = DomainExamples(store, "numbers", 4 * shortest, 0)
    assert 0 < len(fewer.eligible) < len(drawn.eligible) < len(lengths)


def prepared(folder, documents, tokenizer="train"):
    (folder / "text").mkdir(parents=True)
    for domain, count in documents.items():
        words = [f"word{i} and some more of them {i * i} times over" * 8 for i in range(count)]
        lines = [json.dumps({"text": text}) for text in words]
        (folder / "text" / f"{domain}.jsonl").write_text("\n".join(lines))
    settings = CorpusSettings(
        source=str(folder / "text"),
        store=str(folder / "store"),
        tokenizer=tokenizer,
        vocab_size=300,
        validation_fraction=0.3,
    )
    return prepare(settings, progress=False)


def test_domains_with_too_little_text_are_left_out_with_a_note(tmp_path):
    store = prepared(tmp_path / "both", {"few": 4, "many": 40})
    notes = []
    names = write_local_tasks(store, tmp_path / "tasks", 32, 400, 0, notes.append)
    assert names == ["local_cloze_many", "local_continuation_many"]
    assert any(note.startswith("local_cloze_few: ") for note in notes)
    assert any("give no more" in note for note in notes)
    store = prepared(tmp_path / "one", {"few": 4})
    with pytest.raises(UserError, match="no domain has enough text"):
        write_local_tasks(store, tmp_path / "tasks", 32, 5, 0, notes.append)


@pytest.mark.parametrize(("context", "examples"), [(8, 5), (32, 0)])
def test_numbers_out_of_range_are_refused(store, tmp_path, context, examples):
    with pytest.raises(UserError):
        write_local_tasks(store, tmp_path, context, examples)


def sentence_pieces(kind, path):
    """A tokenizer that puts a blank before each text, as T5's and LLaMA's do."""
    words = [
        f"{word} {word}{n}" for n, word in enumerate(["word", "and", "some", "more", "of", "them"])
    ]
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=90, special_tokens=["</s>"], show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["</s>"], show_progress=False)
    tokenizer.decoder = decoders.Metaspace()
    alphabet = [f"word{n} times over" for n in range(200)]
    tokenizer.train_from_iterator([*words, *alphabet], trainer)
    tokenizer.save(str(path))
    return str(path)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_tokenizers_that_add_a_blank_have_continuations_too(tmp_path, kind):
    store = prepared(tmp_path, {"many": 40}, sentence_pieces(kind, tmp_path / "pieces.json"))
    names = write_local_tasks(store, tmp_path / "tasks", 64, 10, 0)
    assert names == ["local_cloze_many", "local_continuation_many"]
    documents, encode = texts(store, "many"), store.tokenizer().encode
    for example in read(tmp_path / "tasks", "local_continuation_many"):
        context = example["context"]
        for index, choice in enumerate(example["choices"]):
            assert choice[0] == " "
            assert len(encode(context + choice).ids) - len(encode(context).ids) == 16
            own = documents[example["document"]]
            assert (context + choice in own) is (index == example["label"])


def test_the_reason_for_leaving_a_task_out_is_the_true_one(store, monkeypatch):
    drawn = DomainExamples(store, "animals", CONTEXT, 0)
    drawn.eligible = drawn.eligible[:3]
    assert re.match(
        r"3 of its \d+ validation documents have 48 tokens or more, and 4", drawn.cloze(5).reason
    )
    without_blanks = DomainExamples(store, "animals", CONTEXT, 0)
    monkeypatch.setattr(without_blanks, "_text", lambda tokens, first, end: "ACGT" * 20)
    for task in (without_blanks.cloze(5), without_blanks.continuations(5)):
        assert task.examples == []
        assert task.reason == "no words are parted by blanks (100 of 100 draws)"

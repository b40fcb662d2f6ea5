import importlib.metadata
import itertools
import sys

import pytest

from dograph.data.corpus import environment
from dograph.data.corpus.environment import DOMAINS, EnvironmentSource, looks_written
from dograph.data.corpus.python_text import take_apart

SOURCE = '''"""Module docstring of more than eighty characters, which is long enough to keep it."""

# A comment of several words that explains why the function below
# does what it does, in two lines.
def double(x):
    """Short."""
    return 2 * x  # said here


##########
# x = 1; y = 2; z = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
'''


@pytest.fixture(scope="module")
def source():
    return EnvironmentSource()


def test_python_is_taken_apart_without_overlap():
    parts = take_apart(SOURCE)
    assert parts.docstrings == (SOURCE.split('"""')[1],)
    assert parts.comments == (
        "A comment of several words that explains why the function below\n"
        "does what it does, in two lines.",
    )
    assert "docstring" not in parts.code
    assert "Short" not in parts.code
    assert parts.code.startswith("\ndef double") or parts.code.startswith("def double")
    assert "return 2 * x  # said here" in parts.code


def test_what_does_not_parse_is_no_python():
    assert take_apart("def (:") is None
    assert take_apart("x = '\0'") is None


def test_there_are_six_domains_or_more_and_each_has_text(source):
    assert len(source.domains()) >= 6
    for domain in source.domains():
        document = next(source.documents(domain))
        assert len(document) >= 200, domain
        assert len(document) <= DOMAINS[domain].longest + 1


def test_the_largest_cap_is_ten_times_the_smallest():
    caps = [rule.megabytes for rule in DOMAINS.values()]
    assert max(caps) >= 10 * min(caps)


def test_documents_repeat_from_run_to_run(source):
    other = EnvironmentSource()
    for domain in ("c_headers", "readmes"):
        first = list(itertools.islice(source.documents(domain), 20))
        assert first == list(itertools.islice(other.documents(domain), 20))


def test_a_capped_domain_mixes_distributions(source):
    keys = [key for key, _ in source._files if key.endswith(".py")][:200]
    assert len({key.split("/")[0] for key in keys}) >= 5


def test_our_own_distribution_and_editable_ones_are_left_out(tmp_path, monkeypatch):
    for name, origin in (
        ("dograph", None),
        ("Mine", '{"dir_info": {"editable": true}}'),
        ("b_c", None),
    ):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n\nreadme")
        (folder / "RECORD").write_text(f"{name}-1.0.dist-info/METADATA,,\n")
        if origin:
            (folder / "direct_url.json").write_text(origin)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert list(environment.installed_distributions()) == ["b-c"]
    assert EnvironmentSource().identity()[1:] == ["b-c==1.0"]


def test_a_distributions_header_is_what_importlib_reads(tmp_path):
    found = list(importlib.metadata.distributions())
    for name, text in (
        ("a-1.dist-info/METADATA", "Version: 1\nName: a\n\nVersion: 2\n\nName: b\n"),
        ("b-1.egg-info/PKG-INFO", "Name: b\nSummary: of\n  two lines\nVersion: 3"),
        ("c-1.dist-info/METADATA", "\nName: below\n"),
        ("d-1.dist-info/RECORD", ""),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    (tmp_path / "e-1.egg-info").write_text("Name: e\nVersion: 4\n\nreadme")
    found += importlib.metadata.distributions(path=[str(tmp_path)])
    assert len(found) > 20
    for each in found:
        header, whole = environment.header(each), each.metadata
        assert (header["Name"], header["Version"]) == (whole["Name"], whole["Version"])


def test_the_order_does_not_depend_on_where_the_environment_lives(tmp_path, monkeypatch):
    texts = []
    for place in ("here", "there/deeper"):
        folder = tmp_path / place / "p-1.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Name: p\nVersion: 1\n\n")
        names = [f"p/{number}.pyi" for number in range(9)]
        for name in names:
            path = tmp_path / place / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(
                "".join(f"def of_{name[2]}_{n}(x: int) -> str: ...\n" for n in range(9))
            )
        (folder / "RECORD").write_text("".join(f"{name},,\n" for name in names))
        monkeypatch.setattr(sys, "path", [str(tmp_path / place)])
        texts.append(list(EnvironmentSource().documents("type_stubs")))
    assert len(texts[0]) == 9
    assert texts[0] == texts[1]


def test_generated_text_is_recognised():
    assert looks_written("def f(x):\n    return x\n" * 20)
    assert not looks_written("var a=1;" * 500)
    assert not looks_written("0.123, 4.567, 8.901\n" * 50)

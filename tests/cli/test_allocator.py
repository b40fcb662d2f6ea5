"""Freed memory stays in the process, unless somebody has chosen otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from dograph.cli.allocator import keep_freed_memory
from dograph.cli.main import main
from dograph.errors import UserError

REPEATS, BYTES = 10, 100_000_000
PAGE_FAULTS = f"""
import resource
from dograph.cli.allocator import keep_freed_memory
told = keep_freed_memory()
for _ in range({REPEATS}):
    block = bytearray(b"x") * {BYTES}
    del block
print(int(told), resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def page_faults(**environment):
    """(whether the allocator was told, page faults) of a process that allocates and frees."""
    clean = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", PAGE_FAULTS],
        check=True,
        capture_output=True,
        text=True,
        env=clean | environment,
    )
    told, faults = map(int, done.stdout.split())
    return bool(told), faults


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_reused_instead_of_mapped_again():
    told, kept = page_faults()
    _, returned = page_faults(DOGRAPH_KEEP_MEMORY="0")
    assert told
    assert returned - kept > (REPEATS - 2) * BYTES / os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "environment",
    [
        {"DOGRAPH_KEEP_MEMORY": "0"},
        {"MALLOC_MMAP_MAX_": "10"},
        {"MALLOC_TRIM_THRESHOLD_": "100000"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=100000"},
    ],
)
def test_who_has_chosen_is_left_alone(environment):
    assert not keep_freed_memory(environment)


def test_a_misspelt_switch_is_refused(monkeypatch, capsys):
    with pytest.raises(UserError, match="DOGRAPH_KEEP_MEMORY is 'off': set it to 0 or 1"):
        keep_freed_memory({"DOGRAPH_KEEP_MEMORY": "off"})
    monkeypatch.setenv("DOGRAPH_KEEP_MEMORY", "off")
    assert main(["evaluate", "nowhere"]) == 2
    assert "DOGRAPH_KEEP_MEMORY" in capsys.readouterr().err

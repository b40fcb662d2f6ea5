"""Code that two real processes run, as the ranks of one Lightning run after the other."""

import subprocess
import sys
from pathlib import Path

HEAD = """\
import os, sys, torch
sys.path.insert(0, {here!r})
from dograph.data.corpus.settings import CorpusSettings
from dograph.mixers import DoGE, DoGraph, DoReMi
from test_mixing_callback import Callback, Draws, LossSeeker, train
from test_signal_collector import schedule
settings = CorpusSettings(
    source={source!r}, vocab_size=300, store={store!r}, validation_fraction=0.2
)
both = dict(devices=2, strategy="ddp")

"""


def run_on_two_ranks(folder, settings, code):
    """Runs code that trains with ``**both``; it may use what `HEAD` imports."""
    script = folder / "two_ranks.py"
    place = {"source": settings.source, "store": settings.store}
    script.write_text(HEAD.format(here=str(Path(__file__).parent), **place) + code)
    subprocess.run([sys.executable, str(script)], check=True, timeout=240, cwd=folder)

"""Progress counts optimiser steps; without a terminal it is lines."""

import io
import os
import re
from itertools import takewhile

import pytest
from lightning.pytorch import Trainer
from rich.console import Console
from warm import COMMANDS, WarmProcess

from dograph.data.data_mixer import DataMixer
from dograph.evaluation.perplexity import DomainPerplexity
from dograph.mixers import Stratified
from dograph.reports.progress import StepLines, StepProgressBar, training_progress
from dograph.training.language_model import LanguageModel
from dograph.training.mixing_callback import MixingCallback

CONFIG = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 300, "n_positions": 16}


@pytest.fixture
def train(corpus_settings, store):
    """Trains four steps of three micro-batches, with a validation after each second step."""

    def run(bar_of):
        data = DataMixer(Stratified(), corpus_settings, 16, 4, validation_sequences=2, seed=1)
        perplexity, mixing = DomainPerplexity(), MixingCallback()
        bar = bar_of(perplexity, mixing)
        trainer = Trainer(
            accelerator="cpu",
            max_steps=4,
            max_epochs=-1,
            accumulate_grad_batches=3,
            val_check_interval=6,
            limit_val_batches=2,
            num_sanity_val_steps=0,
            callbacks=[mixing, perplexity, bar],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(LanguageModel(config=CONFIG), datamodule=data)
        return bar

    return run


def test_lines_say_step_loss_speed_and_the_time_left(train):
    text = io.StringIO()
    train(lambda *callbacks: StepLines(*callbacks, Console(file=text, width=1000), every=0.0))
    lines = text.getvalue().splitlines()
    assert lines[0] == "Training begins: step 0 of 4"
    steps = [line for line in lines[1:] if "validation" not in line]
    assert len(steps) == 12, text.getvalue()
    form = r"step \d of 4, loss \d\.\d{3}, [\d,]+ tokens/s, (\?|\d+:\d\d) left"
    assert all(re.fullmatch(form, line) for line in steps), steps
    assert [line[5] for line in steps] == list("001112223334")
    ends = [line for line in lines if "mean loss" in line]
    form = r"step \d of 4: validation: mean loss \d\.\d{3}, worst \d\.\d{3}, after 0:\d\d"
    assert [line[5] for line in ends] == ["2", "4"]
    assert all(re.fullmatch(form, line) for line in ends), ends


def test_there_are_few_lines_of_a_short_run(train):
    text = io.StringIO()
    train(lambda *callbacks: StepLines(*callbacks, Console(file=text, width=1000)))
    assert len(text.getvalue().splitlines()) <= 4


def test_the_bar_counts_optimiser_steps(train):
    counts = []

    class Watched(StepProgressBar):
        def on_train_batch_end(self, *arguments):
            super().on_train_batch_end(*arguments)
            task = self.train_progress_bar
            counts.append((task.completed, task.total))

    train(lambda perplexity, mixing: Watched(perplexity))
    assert counts == [(step, 4) for step in (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4)]


def test_a_pipe_has_lines(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setenv("FORCE_COLOR", "1")
    made = training_progress(DomainPerplexity(), MixingCallback(), 30.0)
    assert isinstance(made, StepLines)


def test_a_pipe_s_reader_gets_lines_while_a_run_trains(small_recipe):
    recipe = small_recipe("piped", steps=300)
    words = ["run", str(recipe), "report.line_seconds=0", "trainer.val_check_interval=300"]
    reader, writer = os.pipe()
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        streams = (nothing.fileno(), writer, writer)
        process = WarmProcess(COMMANDS, words, dict(os.environ), streams)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        before = list(takewhile(lambda line: not line.startswith("Training begins"), pipe))
        first = pipe.readline()
        form = r"step 1 of 300, loss \d\.\d{3}, [\d,]+ tokens/s, \S+ left\n"
        assert re.fullmatch(form, first), before
        assert process.poll() is None
        assert "step 299 of 300, loss " in pipe.read()
    assert process.wait(60) == 0

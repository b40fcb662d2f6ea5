"""Score a checkpoint on held-out text and downstream tasks.

Prints loss, perplexity and bits per byte of every domain's validation text, with 95 % intervals.

Tasks, by lm-evaluation-harness (pip install 'dograph[eval]'):
  local        made of the store's validation text, without a network
  paper        piqa, hellaswag, lambada_openai, copa, openbookqa, winogrande, sciq, logiqa, arc_easy
  piqa,sciq    any task of the harness by its name

Examples:
  dograph evaluate runs/dograph_gpt2/seed_0
  dograph evaluate runs/dograph_gpt2/seed_0 --tasks local --output evaluation.json
  dograph evaluate runs/doremi_gpt2/seed_0/main/checkpoints/final.ckpt --corpus other_store
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `evaluate`: those of ``evaluate_checkpoint``."""
    add = parser.add_argument
    add("checkpoint", type=Path, help="a .ckpt file, or the folder of a run: its final one")
    add("--corpus", type=Path, metavar="STORE", help="a prepared store instead of the run's own")
    add("--sequences", type=int, metavar="N", help="of each domain (default: the run's)")
    add("--context", type=int, metavar="N", help="tokens a sequence (default: the run's)")
    add("--batch-size", type=int, metavar="N", help="sequences at once (default: the run's)")
    add("--device", default="auto", help="torch's name, e.g. cuda:1 (default: CUDA if there)")
    add("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (1000)")
    add("--seed", type=int, default=0, help="of the bootstrap and of the local tasks (0)")
    add("--tasks", metavar="NAMES", help="local, paper, or the harness's names, with commas")
    add("--examples", type=int, default=100, metavar="N", help="of each local task (100)")
    add("--task-folder", type=Path, metavar="DIR", help="for local tasks (default: RUN/tasks)")
    add("--output", type=Path, metavar="FILE", help="write all of it as JSON")
    add("--force", action="store_true", help="replace FILE, or results in RUN/tasks.json")


def execute(arguments: Namespace) -> int:
    """Print a checkpoint's losses by domain, and its tasks."""
    from dograph.evaluation.command import evaluate_checkpoint

    evaluate_checkpoint(**{k: value for k, value in vars(arguments).items() if k != "command"})
    return 0

"""Write a run's domain weights as other trainers read them.

Prints the domain weights of RUN (they count tokens) in one of these formats:
  yaml, json   domain: weight
  litdata      folders of StreamingDatasets, and the keyword arguments of the
               CombinedStreamingDataset over them (litgpt's data, too): JSON
  megatron     `weight path weight path …`, for Megatron-LM's --data-path or --data-args-path
  nemo         the same as a YAML list, for the `paths` of NeMo 2's PreTrainingDataModule
  streaming    `streams` with `proportion`, for mosaicml-streaming and llm-foundry: YAML

Examples:
  dograph export runs/doremi_gpt2/seed_0/proxy --format megatron --prefix data/
  dograph export runs/doge_gpt2/seed_0 --format json --output weights.json
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dograph.errors import UserError

EXPORT_FORMATS = ("yaml", "json", "litdata", "megatron", "nemo", "streaming")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `export`."""
    add = parser.add_argument
    add("run", type=Path, help="folder of a finished run, or of its stages")
    add("--format", choices=EXPORT_FORMATS, default="yaml")
    add("--prefix", default="", metavar="PATH", help="put before each domain's name, e.g. data/")
    which = "mean over the mixer's updates (the result of a proxy), or the last"
    add("--weights", choices=("average", "last"), default="average", help=which)
    add("--output", type=Path, metavar="FILE", help="instead of the screen")
    add("--force", action="store_true", help="replace FILE")


def execute(arguments: Namespace) -> int:
    """Print a run's weights, or write them to a file."""
    from dograph.files.atomic import write_output
    from dograph.reports.export import changed_midway, counted_otherwise, export, left_out

    text = export(arguments.run, arguments.format, arguments.prefix, arguments.weights)
    if (changed := changed_midway(arguments.run)) is not None:
        print(f"{arguments.run} was resumed under another recipe: {changed}", file=sys.stderr)
    if (counted := counted_otherwise(arguments.run)) is not None:
        print(f"Note: {counted}", file=sys.stderr)
    if (lacks := left_out(arguments.run)) is not None:
        print(f"Note: left out: {lacks}", file=sys.stderr)
    if arguments.output is None:
        print(text, end="")
        return 0
    if arguments.output.exists() and not arguments.force:
        raise UserError(f"{arguments.output} exists: name another file, or add --force")
    if not arguments.output.absolute().parent.is_dir():
        raise UserError(
            f"{arguments.output}: cannot be written: its folder does not exist: make it first"
        )
    try:
        write_output(arguments.output, text)
    except OSError as error:
        raise UserError(f"{arguments.output}: cannot be written: {error.strerror}") from error
    print(f"Wrote {arguments.output}")
    return 0

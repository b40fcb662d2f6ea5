"""`export`: a run's domain weights, as other trainers read them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dograph.errors import UserError

EXPORT_FORMATS = ("yaml", "json", "litdata", "megatron", "nemo", "streaming")

EXPORT_HELP = """\
Prints the domain weights of RUN (they count tokens) in one of these formats:

  yaml, json   domain: weight
  litdata      folders of StreamingDatasets, and the keyword arguments of the
               CombinedStreamingDataset over them (litgpt's data, too): JSON
  megatron     `weight path weight path …`, for Megatron-LM's --data-path or --data-args-path
  nemo         the same as a YAML list, for the `paths` of NeMo 2's PreTrainingDataModule
  streaming    `streams` with `proportion`, for mosaicml-streaming and llm-foundry: YAML

examples:
  dograph export runs/doremi_gpt2/seed_0/proxy --format megatron --prefix data/
  dograph export runs/doge_gpt2/seed_0 --format json --output weights.json
"""


def add_export(commands: Any) -> None:
    """The parser of `export`."""
    exporting = commands.add_parser(
        "export",
        help="write a run's domain weights as other trainers read them",
        description=EXPORT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    exporting.add_argument("run", type=Path, help="folder of a finished run, or of its stages")
    exporting.add_argument("--format", choices=EXPORT_FORMATS, default="yaml")
    exporting.add_argument(
        "--prefix", default="", metavar="PATH", help="put before each domain's name, e.g. data/"
    )
    exporting.add_argument(
        "--weights",
        choices=("average", "last"),
        default="average",
        help="mean over the mixer's updates (the result of a proxy), or the last",
    )
    exporting.add_argument("--output", type=Path, metavar="FILE", help="instead of the screen")
    exporting.add_argument("--force", action="store_true", help="replace FILE")


def command_export(arguments: argparse.Namespace) -> int:
    """`export`: a run's weights, as another program reads them."""
    from dograph.reports.export import export

    text = export(arguments.run, arguments.format, arguments.prefix, arguments.weights)
    if arguments.output is None:
        print(text, end="")
        return 0
    if arguments.output.exists() and not arguments.force:
        raise UserError(f"{arguments.output} exists: name another file, or add --force")
    try:
        arguments.output.write_text(text)
    except OSError as error:
        raise UserError(f"{arguments.output}: cannot be written: {error.strerror}") from error
    print(f"Wrote {arguments.output}")
    return 0

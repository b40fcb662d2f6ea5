r"""Fit a mixing law to fixed mixtures' losses, and propose the mixture for a target.

Reads runs of fixed mixtures (a folder of `dograph swarm`, `oracle` or `sweep`), one CSV file
(columns weight/NAME and loss/NAME), or two (mixtures, then losses, as RegMix and olmix write
them). Prints out-of-fold errors, how domains help each other, the proposed mixture and a bad one
to check the law by; fit.json keeps all of it. Losses: the lower, the better.

Laws: exponential and log-linear (c + k exp(t·r)), bimix (power of the own share), regmix (trees),
linear, gp (the oracle's Gaussian process), mixmin (likelihoods by models of one domain each).

Examples:
  dograph fit runs/uniform_gpt2_swarm --law regmix --target type_stubs
  dograph fit mixtures.csv losses.csv --law exponential --target web=3,code=1 --at-most code=0.3
  dograph fit table.csv --law log-linear --sizes web=6e8,code=4e7 --tokens 1e9 --epochs 4
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dograph.errors import UserError

if TYPE_CHECKING:
    from dograph.experiments.laws.table import MixtureTable


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `fit`."""
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="RUNS|TABLE.csv", help="folders, or one or two CSV")
    add("--law", default="exponential", metavar="LAW", help="one of the above (exponential)")
    named = "mean, a loss, or NAME=WEIGHT,… (the runs' own target, of tables the mean)"
    add("--target", type=weights_or_name, metavar="TARGET", help=named)
    around = "tokens, even, or NAME=WEIGHT,… (tokens if known, else the mixtures' mean)"
    add("--prior", type=weights_or_name, metavar="PRIOR", help=around)
    limit = "largest share of a domain; may be given again"
    add("--at-most", type=weights, action="append", default=[], metavar="NAME=SHARE", help=limit)
    planned = "tokens of the run that is planned: no domain is repeated more than --epochs times"
    add("--tokens", type=float, metavar="N", help=planned)
    add("--epochs", type=float, default=4.0, metavar="E", help="most passes of a domain (4)")
    add("--sizes", type=weights, default={}, metavar="NAME=TOKENS,…", help="the domains' tokens")
    pull = "weight of the divergence from the prior (as published: log-linear 0.1, else 0)"
    add("--pull", type=float, metavar="λ", help=pull)
    add("--folds", type=int, default=5, metavar="K", help="of the cross-validation (5)")
    add("--seed", type=int, default=0, metavar="S", help="of folds and draws (0)")
    place = "(fit.json, in the folder of runs if there is one)"
    add("--output", type=Path, metavar="FILE", help=f"where the numbers go {place}")


def weights(text: str) -> dict[str, float]:
    """`NAME=NUMBER,…` by name."""
    named: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise ArgumentTypeError(f"{part!r}: write NAME=NUMBER") from error
        if not name:
            raise ArgumentTypeError(f"{part!r}: write NAME=NUMBER")
        if name in named:
            raise ArgumentTypeError(f"{text!r} names {name!r} twice: give one number")
        named[name] = value
    return named


def weights_or_name(text: str) -> Any:
    """`NAME=NUMBER,…` by name, or a name."""
    return weights(text) if "=" in text else text


def execute(arguments: Namespace) -> int:
    """Fit, print tables and one sentence, and write fit.json."""
    from dograph.experiments.laws.fit import Fit, FitSettings
    from dograph.files.atomic import write_json
    from dograph.files.run_dir import FIT
    from dograph.terminal.progress import print_line
    from dograph.terminal.screen import Screen

    names = ("law", "target", "prior", "tokens", "epochs", "sizes", "pull", "folds", "seed")
    at_most: dict[str, float] = {}
    for each in arguments.at_most:
        if twice := next((name for name in each if name in at_most), None):
            raise UserError(f"--at-most names {twice!r} twice: give one share")
        at_most |= each
    options = {name: getattr(arguments, name) for name in names}
    settings = FitSettings(at_most=at_most, **options)
    console = Screen()
    result = Fit(read_table(arguments.paths, settings.law), settings, console).run()
    folder = (
        arguments.paths[0] if len(arguments.paths) == 1 and arguments.paths[0].is_dir() else None
    )
    output = arguments.output or (folder or Path()) / FIT
    write_json(output, result.as_json())
    for table in result.tables():
        console.print(table)
    for line in (*result.notes, result.sentence, f"Wrote {output}"):
        print_line(console, line)
    return 0


def read_table(paths: list[Path], law: str) -> MixtureTable:
    """The table of folders of runs, or of CSV files."""
    from dograph.experiments.laws.csv_table import read_tables
    from dograph.experiments.laws.run_table import read_runs

    folders = [path for path in paths if path.is_dir()]
    if not folders:
        return read_tables(paths)
    if len(folders) < len(paths):
        other = next(path for path in paths if not path.is_dir())
        raise UserError(f"{other} is no folder: name folders of runs, or CSV files, not both")
    return read_runs(folders, whole=law == "bimix", sequences=law == "mixmin")

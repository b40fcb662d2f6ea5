"""The front door: `lightning run RECIPE` and `dograph COMMAND`."""

from __future__ import annotations

import importlib.util
import os
import sys
import unicodedata
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from dograph.cli import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USER_ERROR,
    compare,
    evaluate,
    export,
    fit,
    init,
    mixers,
    oracle,
    plan,
    prepare,
    report,
    reproduce,
    run,
    swarm,
    sweep,
)
from dograph.cli.allocator import keep_freed_memory
from dograph.errors import UserError, file_errors
from dograph.terminal.encoding import print_everything, use_utf8

COMMANDS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(init, run, plan, mixers, prepare, sweep, oracle, swarm),
        *(fit, evaluate, compare, report, export, reproduce),
    )
}
"""By name: each module's docstring is its help, and it has ``add_arguments`` and ``execute``."""
TRAINING = ("run", "plan", "sweep", "oracle", "swarm", "reproduce")
"""Commands that train."""
OWN_CODE = (*TRAINING, "mixers")
"""Commands that may use the user's own mixers."""
UNPRINTED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of characters that a terminal obeys instead of showing."""


def build_parser(program: str) -> ArgumentParser:
    """The command line's parser; imports nothing heavy, so that --help is quick."""
    parser = ArgumentParser(program, description="Data mixing for language-model pretraining.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        text = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        if name in OWN_CODE:
            files = "a Python file, or a folder of them, whose classes a recipe may name"
            command.add_argument("--mixers", type=Path, metavar="PATH", help=files)
    return parser


def main(arguments: Sequence[str] | None = None, program: str = "dograph") -> int:
    """`dograph …`: exit code 0, 2 for a mistake the user can fix, 130 when interrupted."""
    if arguments is None:  # the command of this process, not a call from Python
        use_utf8()
    print_everything()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    parser = build_parser(program)
    parsed, rest = parser.parse_known_args(arguments)
    # argparse does not recognise overrides that follow an option.
    given = [word for word in rest if "=" in word and word[0] != "-" and "overrides" in parsed]
    if unknown := [word for word in rest if word not in given]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if given:
        parsed.overrides = [*parsed.overrides, *given]
    try:
        if parsed.command in (*TRAINING, "evaluate"):
            keep_freed_memory()
        if getattr(parsed, "mixers", None) is not None:
            from dograph.experiments.recipe.classes import allow_code

            allow_code(parsed.mixers)
        with file_errors():
            code = int(COMMANDS[parsed.command].execute(parsed))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"{program}: error: {printable(str(error))}", file=sys.stderr)
        return EXIT_USER_ERROR
    except BrokenPipeError:
        if reader_remains():
            raise
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"\n{program}: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED


def reader_remains() -> bool:
    """Whether stdout still has a reader; if not (`dograph … | head`), what is left is dropped."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def printable(text: str) -> str:
    """Escape the control characters of a text.

    A message may quote names and keys of untrusted files, which must not control a terminal.
    Newlines and all scripts stay; characters that change the direction of writing do not.
    """
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in UNPRINTED
        else character.encode("unicode_escape", "replace").decode()
        for character in text
    )


def lightning_main() -> int:
    """`lightning …`: `run RECIPE.yaml` is ours, everything else is lightning_sdk's command."""
    use_utf8()
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("run", "-h", "--help"):
        return main(arguments or ["--help"], program="lightning")
    if importlib.util.find_spec("lightning_sdk") is not None:
        from lightning_sdk.cli.entrypoint import main_cli

        main_cli()
        return 0
    print(
        f"lightning: unknown command {arguments[0]!r}: dograph adds `lightning run RECIPE`; the "
        "rest of Lightning's command line comes with `pip install lightning-sdk`",
        file=sys.stderr,
    )
    return EXIT_USER_ERROR


if __name__ == "__main__":
    sys.exit(main())

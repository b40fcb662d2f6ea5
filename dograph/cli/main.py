"""The front door: `lightning run RECIPE` and `dograph COMMAND`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import unicodedata
from collections.abc import Sequence

from dograph.cli.compare import add_compare, command_compare
from dograph.cli.evaluate import add_evaluate, command_evaluate
from dograph.cli.exit_codes import EXIT_INTERRUPTED, EXIT_USER_ERROR
from dograph.cli.export import add_export, command_export
from dograph.cli.prepare import add_prepare, command_prepare
from dograph.cli.reproduce import add_reproduce, command_reproduce
from dograph.cli.run import add_run, command_run
from dograph.cli.sweep import add_sweep, command_sweep
from dograph.errors import UserError, file_errors

COMMANDS = {
    "run": (add_run, command_run),
    "prepare": (add_prepare, command_prepare),
    "sweep": (add_sweep, command_sweep),
    "evaluate": (add_evaluate, command_evaluate),
    "compare": (add_compare, command_compare),
    "export": (add_export, command_export),
    "reproduce": (add_reproduce, command_reproduce),
}
"""How each is read, and what it does."""
UNPRINTED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of characters that are not shown but obeyed."""


def build_parser(program: str) -> argparse.ArgumentParser:
    """The command line's parser; imports nothing heavy, so that --help is quick."""
    parser = argparse.ArgumentParser(
        program, description="Data mixing for language-model pretraining."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for add, _ in COMMANDS.values():
        add(commands)
    return parser


def main(arguments: Sequence[str] | None = None, program: str = "dograph") -> int:
    """`dograph …`: exit code 0, 2 for a mistake the user can mend, 130 when interrupted."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    parser = build_parser(program)
    parsed, rest = parser.parse_known_args(arguments)
    strangers = [word for word in rest if word.startswith("-") or "=" not in word]
    if strangers:
        parser.error(f"unrecognized arguments: {' '.join(strangers)}")
    if rest and "overrides" not in parsed:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.overrides = [
            *parsed.overrides,
            *rest,
        ]  # argparse takes those behind an option for unknown
    try:
        if getattr(parsed, "mixers", None) is not None:
            from dograph.experiments.recipe.classes import allow_code

            allow_code(parsed.mixers)
        with file_errors():
            return COMMANDS[parsed.command][1](parsed)
    except UserError as error:
        print(f"{program}: error: {printable(str(error))}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"\n{program}: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED


def printable(text: str) -> str:
    """The text with its control characters spelt out.

    A message may quote the names and keys of strangers' files, which must not steer a terminal.
    Lines stay; so do characters of all scripts, but for those that turn the writing around.
    """
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in UNPRINTED
        else character.encode("unicode_escape", "replace").decode()
        for character in text
    )


def lightning_main() -> int:
    """`lightning …`: `run RECIPE.yaml` is ours, the rest goes on to lightning_sdk's command."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("run", "-h", "--help"):
        return main(arguments or ["--help"], program="lightning")
    if importlib.util.find_spec("lightning_sdk") is not None:
        from lightning_sdk.cli.entrypoint import main_cli

        main_cli()
        return 0
    print(
        f"lightning: {arguments[0]!r} is not ours: this is dograph's `lightning run RECIPE`; "
        "the rest of Lightning's command line comes with `pip install lightning-sdk`",
        file=sys.stderr,
    )
    return EXIT_USER_ERROR


if __name__ == "__main__":
    sys.exit(main())

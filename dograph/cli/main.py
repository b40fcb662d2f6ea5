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
"""By name: what adds a command's parser, and what runs it."""
UNPRINTED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of characters that a terminal obeys instead of showing."""


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
    """`dograph …`: exit code 0, 2 for a mistake the user can fix, 130 when interrupted."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    parser = build_parser(program)
    parsed, rest = parser.parse_known_args(arguments)
    # argparse does not recognise overrides that follow an option.
    takes_overrides = "overrides" in parsed
    unknown = [
        word for word in rest if word.startswith("-") or "=" not in word or not takes_overrides
    ]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        parsed.overrides = [*parsed.overrides, *rest]
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

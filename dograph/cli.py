"""The front door: `lightning run RECIPE` and `dograph run|prepare|evaluate|export`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from dograph.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

RUN_HELP = """\
Trains what RECIPE describes and reports it in TensorBoard.

examples:
  lightning run recipes/dograph_gpt2.yaml
  lightning run recipes/dograph_gpt2.yaml trainer.max_steps=20 mixer.init_args.clusters=4
  lightning run recipes/dograph_gpt2.yaml --resume runs/dograph_gpt2/seed_0
  lightning run recipes/doremi_gpt2.yaml stages.proxy.trainer.max_steps=100 --stage proxy

A recipe with stages runs what is missing: finished stages are used again while their inputs
stay the same, an interrupted one goes on from its checkpoint.
"""
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
EVALUATE_HELP = """\
Prints loss, perplexity and bits per byte of every domain's validation text, with 95 % intervals.

tasks, by lm-evaluation-harness (pip install 'dograph[eval]'):
  local        made of the store's validation text, without a network
  paper        piqa, hellaswag, lambada_openai, copa, openbookqa, winogrande, sciq, logiqa, arc_easy
  piqa,sciq    any task of the harness by its name

examples:
  dograph evaluate runs/dograph_gpt2/seed_0
  dograph evaluate runs/dograph_gpt2/seed_0 --tasks local --output evaluation.json
  dograph evaluate runs/doremi_gpt2/seed_0/main/checkpoints/final.ckpt --corpus other_store
"""


def build_parser(program: str) -> argparse.ArgumentParser:
    """The command line's parser; imports nothing heavy, so that --help is quick."""
    parser = argparse.ArgumentParser(
        program, description="Data mixing for language-model pretraining."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser(
        "run",
        help="train what a recipe describes",
        description=RUN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    running.add_argument("recipe", type=Path, help="a YAML file, e.g. recipes/dograph_gpt2.yaml")
    running.add_argument("overrides", nargs="*", metavar="key=value", help="the last word on a key")
    running.add_argument("--resume", type=Path, metavar="RUN", help="folder of a run to go on with")
    running.add_argument("--stage", metavar="NAME", help="run only this stage of the recipe")
    running.add_argument("--check", action="store_true", help="check the recipe and stop")
    preparing = commands.add_parser(
        "prepare",
        help="turn a corpus into tokens on disk",
        description="Prepares the corpus of a recipe or of a file in configs/data.",
    )
    preparing.add_argument("recipe", type=Path, help="a YAML file with a section `corpus`")
    preparing.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. corpus.store=DIR"
    )
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
    add_evaluate(commands)
    return parser


def command_run(arguments: argparse.Namespace) -> int:
    """`run`: check, train, print the end of the run."""
    from dograph.composition import compose, stage_names
    from dograph.interruption import Interrupted
    from dograph.recipe import check

    staged = stage_names(arguments.recipe, arguments.overrides)
    words = [str(arguments.recipe), *arguments.overrides]
    words += ["--stage", arguments.stage] if arguments.stage else []
    try:
        if staged:
            return run_stages(arguments)
        if arguments.stage:
            raise UserError(f"{arguments.recipe} has no stages: leave --stage out")
        recipe = check(compose(arguments.recipe, arguments.overrides))
        if arguments.check:
            print(recipe.as_yaml(), end="")
            return 0
        from dograph.run import run

        run(recipe, arguments.resume)
    except Interrupted as interruption:
        if not staged:  # stages go on by themselves
            words += ["--resume", str(interruption.checkpoint.parent.parent)]
        print(
            f"\nInterrupted; nothing lost. Checkpoint: {interruption.checkpoint}\n"
            f"Go on with: lightning run {shlex.join(words)}"
        )
        return EXIT_INTERRUPTED
    return 0


def run_stages(arguments: argparse.Namespace) -> int:
    """`run` of a recipe with stages."""
    from dograph.stages import Experiment

    if arguments.resume:
        raise UserError(
            f"{arguments.recipe} has stages, which go on by themselves: run it again, without "
            "--resume"
        )
    experiment = Experiment(arguments.recipe, arguments.overrides)
    if arguments.check:
        print("---\n".join(recipe.as_yaml() for recipe in experiment.check().values()), end="")
        return 0
    experiment.run(only=arguments.stage)
    return 0


def command_export(arguments: argparse.Namespace) -> int:
    """`export`: a run's weights, as another program reads them."""
    from dograph.report.export import export

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


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of `evaluate`."""
    evaluating = commands.add_parser(
        "evaluate",
        help="score a checkpoint on held-out text and downstream tasks",
        description=EVALUATE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = evaluating.add_argument
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


def command_evaluate(arguments: argparse.Namespace) -> int:
    """`evaluate`: a checkpoint's losses by domain, and downstream tasks."""
    from dograph.evaluation.command import evaluate_checkpoint

    evaluate_checkpoint(**{k: value for k, value in vars(arguments).items() if k != "command"})
    return 0


def command_prepare(arguments: argparse.Namespace) -> int:
    """`prepare`: tokens on disk, and where."""
    from dograph.composition import compose
    from dograph.corpus.prepare import prepare
    from dograph.corpus.settings import CorpusSettings
    from dograph.recipe import check_section

    composition = compose(arguments.recipe, arguments.overrides)
    given = composition.values.get("corpus") or {}
    section = check_section(composition, "corpus", CorpusSettings, given, set())
    store = prepare(CorpusSettings(**section.as_dict()))
    print(f"Prepared: {store.path}")
    return 0


def main(arguments: Sequence[str] | None = None, program: str = "dograph") -> int:
    """`dograph …`: exit code 0, 2 for a mistake the user can mend, 130 when interrupted."""
    sys.path.append(str(Path.cwd()))  # mixers of one's own beside the recipes
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    parser = build_parser(program)
    parsed, rest = parser.parse_known_args(arguments)
    strangers = [word for word in rest if word.startswith("-") or "=" not in word]
    if strangers:
        parser.error(f"unrecognized arguments: {' '.join(strangers)}")
    if rest and "overrides" not in parsed:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.overrides += rest  # argparse takes those behind an option for unknown
    try:
        command = {"run": command_run, "prepare": command_prepare, "export": command_export}
        command["evaluate"] = command_evaluate
        return command[parsed.command](parsed)
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"\n{program}: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED


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

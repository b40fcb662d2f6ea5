"""Peak memory of training GPT-2 small (124 M) by DoGraph and by Stratified."""

from __future__ import annotations

from benchmarks.measuring import Row
from benchmarks.training import THREADS
from benchmarks.turns import Contestant, take_turns

MOST = 1.05
REASON = (
    "; above both: the logits and their gradient are there together with the output gradients of "
    "the last block (83 MB), and scikit-learn's and the solver's libraries"
)


def rows() -> list[Row]:
    """Largest resident size after three steps each."""
    peaks: dict[str, float] = {}

    def read(children: dict[str, Contestant]) -> None:
        peaks.update({name: child.peak_memory() for name, child in children.items()})

    names = ("stratified", "dograph")
    commands = {name: ["-m", "benchmarks.contestants", name, "small"] for name in names}
    take_turns(commands, rounds=1, warm_up=2, threads=THREADS, at_end=read)
    ratio = peaks["dograph"] / peaks["stratified"]
    return [
        Row(
            "small (124 M): peak resident memory of DoGraph over Stratified",
            f"{ratio:.3f}",
            f"≤ {MOST}",
            ratio <= MOST,
            f"{peaks['dograph']:,.0f} and {peaks['stratified']:,.0f} MB after three steps"
            + ("" if ratio <= MOST else REASON),
        )
    ]

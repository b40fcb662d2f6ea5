"""Peak memory of training GPT-2 small (124 M) with DoGraph and with Stratified."""

from __future__ import annotations

from benchmarks.interleaved import SteppedProcess, interleave_steps
from benchmarks.measuring import Row
from benchmarks.training import THREADS

MOST = 1.05
REASON = (
    "; what DoGraph adds: the output gradients of the last block (83 MB), alive together with the "
    "logits and their gradient, and the libraries of scikit-learn and the solver"
)


def rows() -> list[Row]:
    """Compare the largest resident sizes after three steps each."""
    peaks: dict[str, float] = {}

    def read(children: dict[str, SteppedProcess]) -> None:
        peaks.update({name: child.peak_memory() for name, child in children.items()})

    names = ("stratified", "dograph")
    commands = {name: ["-m", "benchmarks.baselines", name, "small"] for name in names}
    interleave_steps(commands, rounds=1, warm_up=2, threads=THREADS, at_end=read)
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

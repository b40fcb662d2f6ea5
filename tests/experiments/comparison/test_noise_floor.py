"""What a comparison says of its noise: detectable differences, open ties, weak claims."""

import json
import re

import pytest
from test_files import Tags
from written_runs import write_run, write_study

from dograph.cli.main import main
from dograph.experiments.comparison.comparison import compare
from dograph.experiments.comparison.noise_floor import is_weak
from dograph.experiments.comparison.page import as_page
from dograph.experiments.comparison.statistics import detectable, estimate

SMALLEST = "Smallest true difference that four of five such studies would find: "
ALIKE = "With differences that do not vary between seeds no difference can be told from noise"
WEAK = "Smaller than four of five such studies would find, so likely overstated: "


def write_method(runs, name, differences):
    """Runs that end so far from uniform's of ``write_study``, a seed each."""
    for seed, difference in enumerate(differences):
        end = 3.0 + 0.2 * seed + difference
        write_run(runs / name / f"seed_{seed}", seed, [(end, end + 1)], "Fixed")


def test_the_floor_is_the_method_s_spread_at_its_level(tmp_path):
    write_study(tmp_path, spread=0.01)
    differences = [0.04, -0.03, 0.02, 0.05, -0.04]
    write_method(tmp_path, "noisy_gpt2", differences)
    result = compare([tmp_path])
    clear, noisy = result.methods[1:]
    assert clear.paired.level == pytest.approx(0.025)
    assert noisy.paired.level == pytest.approx(0.05)  # the other is claimed
    assert noisy.paired.detectable == pytest.approx(detectable(estimate(differences), 0.05))
    sizes = clear.paired.detectable, noisy.paired.detectable
    assert result.notes == (
        f"{SMALLEST}{sizes[0]:.3f} (other) to {sizes[1]:.3f} (noisy) nats; uniform alone varies by "
        "0.316 between seeds (standard deviation).",
        "A tie may still be worse than uniform by up to (95 %, in nats): noisy "
        f"{noisy.paired.target.bounds[1]:.3f}.",
    )


def test_a_claim_below_the_floor_is_called_weak(tmp_path):
    write_study(tmp_path, spread=0.01)
    write_method(tmp_path, "lucky_gpt2", [-0.05, -0.01, -0.09, -0.03, -0.06])
    result = compare([tmp_path])
    verdicts = {m.label: (m.paired.verdict, is_weak(m.paired)) for m in result.methods[1:]}
    assert verdicts == {"other": ("win", False), "lucky": ("win", True)}
    assert result.notes[1:] == (f"{WEAK}lucky (win).",)


def test_runs_that_are_alike_tell_no_noise(tmp_path):
    for name in ("uniform_gpt2", "same_gpt2"):
        write_method(tmp_path, name, [0.0, 0.0, 0.0])
    (note, *_) = compare([tmp_path], baseline="uniform").notes
    expected = (
        "With differences that do not vary between seeds no difference can be told from noise"
    )
    assert note.startswith(expected)


def test_one_seed_cannot_tell(tmp_path):
    one = compare([write_study(tmp_path / "one", seeds=(3,))])
    assert one.notes[0] == "With one seed no difference can be told from noise."
    more = write_study(tmp_path / "more", seeds=(0, 1, 2))
    for seed in (1, 2):
        (more / "other_gpt2" / f"seed_{seed}").rename(tmp_path / f"away_{seed}")
    assert compare([more]).notes[0] == (
        "With one seed no difference can be told from noise; uniform alone varies by 0.200 between "
        "seeds (standard deviation)."
    )
    write_method(more, "again_gpt2", [0.1, 0.2, 0.4])
    assert "(again) nats, with one seed none; uniform" in compare([more]).notes[0]
    assert compare([more / "uniform_gpt2"]).notes == (
        "Fewer than 5 seeds (3) show a direction and are no claim.",
    )


def test_differences_that_do_not_vary_tell_no_noise(tmp_path):
    write_study(tmp_path, second=0.0)
    assert compare([tmp_path]).notes[0].startswith(ALIKE)


def test_every_format_has_the_floor(study, tmp_path, capsys):
    result = compare([study])
    sizes = {method.name: method.paired.detectable for method in result.methods[1:]}
    shown = f"{sizes['other_gpt2']:.3f}"
    assert main(["compare", str(study)]) == 0
    assert f"{SMALLEST}{shown} (other)" in capsys.readouterr().out
    assert main(["compare", str(study), "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    for name, size in sizes.items():
        assert content["methods"][name]["paired"]["detectable"] == size
    assert main(["compare", str(study), "--format", "markdown"]) == 0
    markdown = capsys.readouterr().out
    assert markdown.splitlines()[0].split(" | ")[8] == "detectable"
    assert re.search(rf"^\| other \|.* \| {shown} \| −", markdown, re.MULTILINE)
    assert SMALLEST in markdown
    page = Tags()
    page.feed(as_page(result, {}))
    assert f"{SMALLEST}{shown} (other)" in page.text
    assert "Detectable: the smallest true difference" in page.text

"""Tables of mixtures and losses in the formats of others, and mistakes in them."""

import shutil

import numpy as np
import pytest

from dograph.cli.main import main
from dograph.errors import UserError
from dograph.experiments.laws.csv_table import read_tables
from dograph.experiments.laws.run_table import read_runs
from dograph.files.atomic import write_json
from dograph.reports.summary import DomainSummary, RunSummary, write_summary

REGMIX = """\
index,train_the_pile_web,train_the_pile_code,train_the_pile_mail
1,0.5,0.502,0.0
2,0.2,0.8,0.0
3,1.0,0.0,0.0
"""
REGMIX_LOSSES = """\
index,metric/the_pile_web_val_loss,metric/the_pile_code_val_loss
1,4.0,3.0
3,3.5,6.0
2,5.0,2.5
"""
OLMIX = """\
,run,name,index,dclm:science,dclm:code
0,ab12,mix-0,0,0.5,0.5
1,cd34,mix-1,1,0.1,0.9
2,ef56,mix-2,2,0.7,0.3
3,gh78,mix-3,3,0.4,0.6
"""
OLMIX_METRICS = """\
run_id,name,eval/arc_bpb,eval/code_bpb
ef56,mix-2,0.9,1.4
ab12,mix-0,1.0,1.2
cd34,mix-1,1.3,1.0
zz99,mix-9,1.3,1.0
gh78,mix-3,nan,1.1
"""
ONE = """\
weight/a,weight/b,loss/a,loss/b,loss/task,step
0.5,0.5,3,4,2.0,100
0.5,0.5,2,3,1.5,200
0.9,0.1,2.5,5,1.2,200
0.1,0.9,4,2,1.9,200
"""


def write(folder, *texts):
    paths = [folder / f"table_{number}.csv" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def test_regmix_s_pair_is_read(tmp_path):
    table = read_tables(write(tmp_path, REGMIX, REGMIX_LOSSES))
    assert table.domains == ("the_pile_web", "the_pile_code")
    assert table.notes == ("never drawn: the_pile_mail",)
    assert table.mixtures.sum(axis=1) == pytest.approx(1)
    assert table.losses.tolist() == [[4.0, 3.0], [5.0, 2.5], [3.5, 6.0]]  # joined by index
    assert [table.own(loss) for loss in range(2)] == [0, 1]
    assert len(table.sources) == 2


def test_olmix_s_pair_is_read(tmp_path):
    table = read_tables(write(tmp_path, OLMIX, OLMIX_METRICS))
    assert table.domains == ("dclm:science", "dclm:code")
    assert table.names == ("eval/arc_bpb", "eval/code_bpb")
    assert table.losses.tolist() == [[1.0, 1.2], [1.3, 1.0], [0.9, 1.4]]
    assert table.notes == (
        "1 rows are in one of the two files only: left out",
        "1 of 4 rows lack a finite loss: left out",
    )
    assert table.own(0) is None


def test_one_file_holds_both_and_steps(tmp_path):
    table = read_tables(write(tmp_path, ONE))
    assert table.names == ("a", "b", "task")
    assert table.at_end.tolist() == [False, True, True, True]
    assert table.groups[0] == table.groups[1]
    assert table.count == 3


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([REGMIX], r"table_0\.csv: has 0 columns weight/NAME and 0 loss/NAME: name them so"),
        ([REGMIX_LOSSES, REGMIX], "row 2: weights of sum 7.* name the file of mixtures first"),
        ([REGMIX.replace("0.8", "-0.8"), REGMIX_LOSSES], "row 3: weights of sum -0.6"),
        ([REGMIX.replace("0.8", "O.8"), REGMIX_LOSSES], "row 3, .*code is 'O.8': give a number"),
        ([REGMIX.replace("2,0.2", "1,0.2"), REGMIX_LOSSES], "index 1 is there twice"),
        ([REGMIX.replace("index", "idx"), REGMIX_LOSSES], "no column names the rows: add one of"),
        ([REGMIX.replace("mail", "web"), REGMIX_LOSSES], "column 'train_the_pile_web' is there tw"),
        ([REGMIX.replace("2,0.2,", "2,"), REGMIX_LOSSES], "row 3 has 3 cells, the heading 4"),
        ([REGMIX, OLMIX_METRICS], "none of its rows is in .*table_0"),
        ([REGMIX, REGMIX_LOSSES, ONE], "table_2.csv: name one table, or two"),
        (["weight/a,loss/a\n"], "has no rows"),
        (["weight/a,loss/a\n1,2\n1,3\n1,4\n"], "1 mixtures of 1 domains: a law needs at least 3"),
    ],
)
def test_mistakes_name_file_row_and_remedy(tmp_path, texts, message):
    with pytest.raises(UserError, match=message):
        read_tables(write(tmp_path, *texts))


def made_up(count=40, seed=0):
    draw = np.random.default_rng(seed)
    mixtures = draw.dirichlet(np.ones(3), count)
    losses = 2 + np.exp(-2 * mixtures + 0.3 * mixtures[:, ::-1])
    ids = [f"m{number}" for number in range(count)]
    rows = [
        ",".join([name, *map(str, row)]) for name, row in zip(ids, mixtures.tolist(), strict=True)
    ]
    values = [
        ",".join([name, *map(str, row)]) for name, row in zip(ids, losses.tolist(), strict=True)
    ]
    return [
        "\n".join(["run,a,b,c", *rows]),
        "\n".join(["run,a,b,c", *values]),
    ]


def test_the_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    import json

    paths = write(tmp_path, *made_up())
    monkeypatch.chdir(tmp_path)
    words = ["fit", *map(str, paths), "--target", "a=3,b=1", "--at-most", "a=0.5", "--prior=even"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "law exponential proposes a 0.50" in said
    assert "rank correlation" in said
    assert "Wrote fit.json" in said
    content = json.loads((tmp_path / "fit.json").read_text())
    assert content["weights"]["a"] == pytest.approx(0.5)
    assert content["target"] == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert len(content["sources"]) == 2
    assert content["errors"]["losses"]["a"]["spearman"] > 0.99
    assert main(["fit", *map(str, paths), "--law", "loglinear"]) == 2
    assert "did you mean 'log-linear'" in capsys.readouterr().err
    assert main(["fit", str(tmp_path / "nosuch.csv")]) == 2
    assert main(["fit", str(tmp_path)]) == 2
    assert "no finished run of a fixed mixture" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", str(paths[0]), "--target", "a=x"])
    assert "write NAME=NUMBER" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", str(paths[0]), "--sizes", "a=1,b=2,a=3"])
    assert "names 'a' twice" in capsys.readouterr().err
    assert main(["fit", *map(str, paths), "--at-most", "a=0.5", "--at-most", "a=0.9"]) == 2
    assert "--at-most names 'a' twice" in capsys.readouterr().err


def write_run(folder, seed, weight):
    """A finished run of a fixed mixture of two domains, as far as a table reads it."""
    folder.mkdir(parents=True)
    domains = tuple(
        DomainSummary(name, share, share, 100, 0.1, 3.0 - share + seed / 10, 1.0, share, share)
        for name, share in (("a", weight), ("b", 1 - weight))
    )
    write_summary(RunSummary("Fixed", 10, 1.0, 1e9, domains, {"mean_loss": 1.0}, "a"), folder)
    metadata = {"fingerprint": "f", "tokenizer": "t", "seed": seed, "corpus": "c"}
    metadata["digest"] = f"{weight} {seed}"
    write_json(folder / "provenance.json", metadata)
    (folder / "recipe.yaml").write_text("mixer: {class_path: dograph.mixers.Fixed}\n")


def test_copies_of_runs_are_no_repeats(tmp_path):
    """A folder that is named twice, or a copied one, once halved the noise between repeats."""
    for seed in range(2):
        write_run(tmp_path / "runs" / "even" / f"seed_{seed}", seed, 0.5)
    once = read_runs([tmp_path / "runs"])
    shutil.copytree(tmp_path / "runs" / "even", tmp_path / "runs" / "copied")
    table = read_runs([tmp_path / "runs", tmp_path / "runs" / "even"])
    assert once.noise(once.losses[:, 0]) == pytest.approx(0.1 / 2**0.5)
    assert table.noise(table.losses[:, 0]) == once.noise(once.losses[:, 0])
    assert table.notes[0] == "4 runs are there twice, or copies of others: counted once"
    assert table.cost == once.cost

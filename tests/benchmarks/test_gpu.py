"""The GPU benchmark: its arithmetic, its report, and all of it at toy size on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.gpu import card, parts, report
from benchmarks.gpu.marks import BACKWARD, FORWARD, LOADING, Marks
from benchmarks.gpu.processes import Processes
from benchmarks.gpu.profiling import OTHER, kind_of
from benchmarks.gpu.size import LOOP, RUNS, SIZES
from benchmarks.imports import arrows, levels
from benchmarks.measuring import Row

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_what_the_results_make():
    results = json.loads(benchmarks.RESULTS.read_text())
    assert benchmarks.TABLE.read_text() == benchmarks.page(results)


def test_peaks_of_cards():
    assert card.peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert card.peak_tflops("NVIDIA H100 PCIe") == 756
    assert card.peak_tflops("CPU") is None


def test_utilisation_of_gpt2_small(tmp_path):
    bench = parts.Bench(SIZES["full"], "cuda", 989, tmp_path, [], Processes(tmp_path, []))
    # 6 · (12 · 12 · 768² + 50,304 · 768) + 12 · 12 · 1,024 · 768
    assert bench.flops_per_token == 854_654_976
    assert card.utilisation(bench.flops_per_token, 500_000, 989) == pytest.approx(0.432, abs=1e-3)
    assert bench.tokens_per_second([1.0, 2.0, 4.0]) == 40 * 16 * 1024 / 2


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("triton_poi_fused_add_0", "compiled (Triton)"),
        ("pytorch_flash::flash_fwd_kernel<…>", "attention"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "matrix products"),
        ("multi_tensor_apply_kernel<…FusedAdam…>", "optimiser and clipping"),
        ("Memcpy DtoH (Device -> Pinned)", "copies and fills"),
        ("vectorized_elementwise_kernel<4, exp_kernel_cuda>", OTHER),
    ],
)
def test_kinds_of_kernels(kernel, kind):
    assert kind_of(kernel) == kind


def test_marks_are_kept_while_they_are_on():
    marks = Marks("cpu")
    marks.end(FORWARD)
    marks.on = True
    for part in (LOADING, FORWARD, BACKWARD, LOADING, FORWARD, BACKWARD):
        marks.end(part)
    times = marks.take()
    assert list(times) == [LOADING, FORWARD, BACKWARD]
    assert all(0 <= time["milliseconds"] == time["host"] for time in times.values())
    assert marks.take() == {}


@pytest.mark.slow
def test_processes_that_fail_say_why_and_are_left_out(tmp_path):
    """A process that ends at once costs neither the others nor its message."""
    processes = Processes(tmp_path, [])
    assert processes.start(["nothing"], 60) == {}
    assert processes.interleave(2, 1) == {}
    assert "ended with exit code 2" in processes.failures["nothing"]
    assert "invalid choice: 'nothing'" in processes.failures["nothing"]


def test_tables_of_a_part_that_failed(tmp_path):
    about = {"command": "c", "seconds": 1, "date": "d", "card": "A|B", "torch": "t", "model": "m"}
    rows = [Row("speed", "1.02", "≥ 1.00", True, "a|b")]
    part = {"rows": rows, "failures": {"dograph": "out of\nmemory"}, "seconds": 1}
    report.write({"about": about, "parts": {"speed": part}}, tmp_path)
    text = (tmp_path / report.TABLES).read_text()
    assert "| speed | 1.02 | ≥ 1.00 | yes | a\\|b |" in text
    assert "**dograph failed**: out of memory" in text
    assert "| speed | 1.02 |" in "\n".join(report.section(tmp_path))


def test_its_files_import_one_another_without_a_circle():
    assert levels(arrows("benchmarks.gpu"))


@pytest.mark.slow
def test_all_of_it_at_toy_size(tmp_path, store):
    """Every part measures something, each in processes of its own."""
    command = ["-m", "benchmarks.gpu", "--device", "cpu", "--minutes", "4", "--peak", "1"]
    folders = ["--store", str(store.path), "--out", str(tmp_path)]
    subprocess.run([sys.executable, *command, *folders], cwd=ROOT, check=True)
    results = json.loads((tmp_path / report.RESULTS).read_text())
    assert list(results["parts"]) == list(parts.PARTS)
    assert not any(part["failures"] for part in results["parts"].values())
    rows = [row for part in results["parts"].values() for row in part["rows"]]
    assert not [row for row in rows if row["figure"] == "not measured"]
    speed, mixers = (results["parts"][name]["measured"] for name in ("speed", "mixers"))
    assert set(speed["seconds"]) | set(mixers["seconds"]) == {*RUNS, LOOP}
    for measured in (speed, mixers):
        assert set(measured["parts"]) == set(measured["profile"]) == set(measured["seconds"])
    # The same process trains both times: nothing may differ.
    assert rows[-1]["figure"] == "0.0e+00 nats"

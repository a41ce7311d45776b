"""`minitx bench step`: an update's time in parts that sum up, kernels by kind, and the bounds of the machine.

`minitx bench cost`: a point for each family, length and width; a table, a file and a figure of them.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from played_cuda import played_gpu
from torch.profiler import ProfilerActivity
from toys import ROOT

from minitx.cli import main as cli
from minitx.experiments.costs import complexity, dry_run, scaling, step
from minitx.experiments.costs.complexity import Grid
from minitx.experiments.costs.step import ByteCounter, kind_of
from minitx.experiments.reports.plots import cost_curves
from minitx.profiling.peak import Peak
from minitx.utils.errors import Exit

QUICK = ("model.size=toy", "trainer.tokens_per_update=256", "data.max_tokens=128", "data.max_length=64",
         "trainer.max_steps=50", "trainer.precision=32-true")


@pytest.fixture
def words(small_text: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A config over a small text, in an empty folder, on a machine that is said to be slow."""
    for name, value in (("MAX_UPDATES", 3), ("WARM_UP", 1)):
        monkeypatch.setattr(dry_run, name, value)
    monkeypatch.setattr(step, "peak", lambda device, precision: Peak(100.0, "data sheet"))
    monkeypatch.setattr(step, "copy_gb_per_s", lambda device: 10.0)
    return ["bench", "step", "data=files", f"data.dir={small_text}", *QUICK]


@pytest.mark.parametrize("model", ["transformer", pytest.param("lstm_attention", marks=pytest.mark.slow)])
def test_the_parts_sum_up(model: str, words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, f"model={model}", "--json"]) == Exit.OK
    found = json.loads(capfd.readouterr().out)
    assert list(found) == ["devices", "update", "kernels", "roofline"]
    phases = [found["update"][name] for name in ("data", "forward", "backward", "optimizer", "other")]
    assert sum(part["share_pct"] for part in phases) == pytest.approx(100, abs=0.1)
    assert 5 < phases[1]["loss_pct_of_kernels"] < 95, "the loss, gradients included, is a part of forward"
    assert all(part["share_pct"] > 0 for part in phases[:4])
    assert sum(kind["share_pct"] for kind in found["kernels"].values()) == pytest.approx(100)
    assert {"matmul", "optimizer", "elementwise", "copies"} < found["kernels"].keys()
    assert found["kernels"]["matmul"]["gflops"] > 0
    roof = found["roofline"]
    assert roof["mfu_pct"] == pytest.approx(roof["gflops"] / 1000)
    assert roof["roof"]["bound"] == "memory"
    assert roof["roof"]["gflops"] == pytest.approx(10 * roof["intensity"])
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_a_person_reads_a_table_and_a_browser_a_trace(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--profile", "trace.json"]) == Exit.OK
    out, err = capfd.readouterr()
    sections = [line for line in out.splitlines() if not line.startswith(" ")]
    assert sections == ["devices", "update", "kernels", "roofline"]
    assert " % of 100 TFLOP/s (data sheet)" in out
    assert re.search("    forward .* the loss takes its gradients here too, .* [0-9]+ % of the time in kernels", out)
    assert "bound by memory; the update reaches " in out
    assert "Traceback" not in err
    assert json.loads(Path("trace.json").read_text())["traceEvents"]


@pytest.mark.slow
def test_what_is_unknown_is_said_to_be(words: list[str], monkeypatch: pytest.MonkeyPatch,
                                       capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(step, "peak", lambda device, precision: Peak(None, "no reason"))
    assert cli.main(words) == Exit.OK
    assert re.search(r"^    mfu_pct +n/a \(no reason\)$", capfd.readouterr().out, re.MULTILINE)


class Profile:
    """Stand in for torch's profiler on a GPU: two operators and what the user marked, in microseconds."""

    seen: tuple[int, int] = (300, 100)  # of the GPU, by the product and by the loss

    def __init__(self, activities: list[ProfilerActivity], **_: object) -> None:
        assert activities == [ProfilerActivity.CPU, ProfilerActivity.CUDA]

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def key_averages(self) -> list[SimpleNamespace]:
        def event(key: str, gpu_us: int, kind: str = "CPU", marked: bool = False) -> SimpleNamespace:
            return SimpleNamespace(key=key, flops=3e6 * (key == "aten::mm"), device_type=SimpleNamespace(name=kind),
                                   is_user_annotation=marked, self_cpu_time_total=7, cpu_time_total=7,
                                   self_device_time_total=gpu_us, device_time_total=gpu_us)

        product, loss = self.seen
        return [event("aten::mm", product), event("_LinearCrossEntropy", loss), event("sgemm_kernel", 999, "CUDA"),
                event("a mark", 999, marked=True)]


def test_on_a_gpu_kernels_are_timed_by_the_gpu(words: list[str], monkeypatch: pytest.MonkeyPatch,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(step, "profile", Profile)
    with played_gpu():
        assert cli.main([*words, "--json"]) == Exit.OK
        found = json.loads(capfd.readouterr().out)
        monkeypatch.setattr(Profile, "seen", (0, 0))
        assert cli.main([*words, "--json"]) == Exit.USAGE
        (message,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    kernels = found["kernels"]
    assert list(kernels) == ["matmul", "loss"]
    assert kernels["matmul"] == pytest.approx({"share_pct": 75.0, "ms": 0.1, "gflops": 10.0})
    assert kernels["loss"]["share_pct"] == found["update"]["forward"]["loss_pct_of_kernels"] == pytest.approx(25.0)
    assert message.startswith("minitx: error: the profiler saw no kernel on the GPU: ")


@pytest.mark.parametrize(("mistake", "message"), [
    (["bench", "stride"], "invalid choice: 'stride'"), (["bench", "step", "model.dropuot=0.1"], "model.dropout"),
    (["bench", "step", "--profile", "no/such/file"], "there is no folder no/such; make it")])
def test_a_slip_is_one_line(mistake: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(mistake) == Exit.USAGE
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize(("operator", "kind"), [
    ("aten::mm", "matmul"), ("aten::addmm", "matmul"), ("aten::linear", "matmul"), ("aten::bmm", "attention"),
    ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"), ("aten::_softmax", "attention"),
    ("aten::_log_softmax", "loss"), ("_LinearCrossEntropy", "loss"), ("mkldnn::_linear_pointwise", "matmul"),
    ("_Dropout", "dropout"),
    ("_PackedAttentionBackward", "attention"), ("aten::put_", "copies"), ("aten::_fused_adamw_", "optimizer"),
    ("aten::linalg_vector_norm", "optimizer"), ("aten::native_layer_norm_backward", "normalisation"),
    ("aten::mkldnn_rnn_layer", "recurrence"), ("aten::random_", "dropout"), ("aten::copy_", "copies"),
    ("aten::index_select", "copies"), ("aten::add_", "elementwise"), ("aten::mul", "elementwise"),
    ("autograd::engine::evaluate_function: MulBackward0", "other")])
def test_operators_have_a_kind(operator: str, kind: str) -> None:
    assert kind_of(operator) == kind


def test_bytes_are_those_read_and_written_and_views_are_free() -> None:
    a, b, table = torch.zeros(100, 10), torch.zeros(100, 10), torch.zeros(1000, 10)
    with ByteCounter() as counter:
        a + b
    assert counter.nbytes == 3 * a.nbytes
    with ByteCounter() as counter:
        a.view(10, 100).t()[2:]
    assert counter.nbytes == 0
    with ByteCounter() as counter:
        table.index_select(0, torch.tensor([5]))
    assert counter.nbytes == 2 * 40 + 8, "the row, and which it is"


TINY = Grid(lengths=(8, 16, 32), widths=(32, 64), length=8, tokens=64, repeats=2)


@pytest.fixture
def costs(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The same config and text, a handful of points, and a peak that anything stays below."""
    monkeypatch.setattr(complexity, "FULL", TINY)
    monkeypatch.setattr(complexity, "peak", lambda device, precision: Peak(100.0, "data sheet"))
    return ["bench", "cost", *words[2:]]


def test_every_point_is_stored_and_drawn(costs: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*costs, "-o", "cost.json", "--plot", "cost.svg"]) == Exit.OK
    found = json.loads(Path("cost.json").read_text())
    families = ["transformer", "lstm_attention", "lstm"]
    assert [list(found[key]) for key in ("models", "by_length", "by_width")] == [families] * 3
    for curve in found["by_length"].values():
        assert [(p["length"], p["d_model"], p["sentences"]) for p in curve["points"]] == [
            (8, 32, 8), (16, 32, 4), (32, 32, 2)]
        assert curve["standard_error"] >= 0
    for curve in found["by_width"].values():
        assert [(p["length"], p["d_model"], p["sentences"]) for p in curve["points"]] == [(8, 32, 8), (8, 64, 8)]
    points = [point for key in ("by_length", "by_width") for curve in found[key].values() for point in curve["points"]]
    assert all(0 < p["fastest_s"] <= p["seconds"] <= p["slowest_s"] for p in points)
    assert all(p["mfu_pct"] == pytest.approx(p["tflops"]) for p in points)
    conditions = found["conditions"]
    assert (conditions["threads"], conditions["precision"], conditions["device"]) == (
        complexity.torch.get_num_threads(), "32-true", "cpu")
    assert conditions["vocab_size"][0] > 260
    assert {"cpu", "cores"} < conditions["hardware"].keys()
    assert conditions["versions"]["torch"] == complexity.torch.__version__
    assert Path("cost.svg").read_bytes() == cost_curves(found)
    out, err = capfd.readouterr()
    assert sum("grows as" in line for line in out.splitlines()) == 6
    assert "Traceback" not in err
    assert {path.name for path in Path().iterdir()} == {"cost.json", "cost.svg"}


def test_families_can_be_named(costs: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*costs, "model=lstm,transformer_nope"]) == Exit.OK
    growing = [line.split()[0] for line in capfd.readouterr().out.splitlines() if "grows as" in line]
    assert growing == ["lstm", "transformer_nope"] * 2
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("mistake", "message"), [
    (["model=lstm,lstn"], "did you mean lstm"), (["--plot", "cost.png"], "ends in .svg"),
    (["-o", "no/such/cost.json"], "no/such/cost.json"),
    (["model=transformer", "model.pos_encoding=learned", "model.max_positions=16", "data.max_length=8",
      "data.clean.max_dropped_pct=100"], "model.max_positions")])
def test_a_slip_costs_no_measurement(mistake: list[str], message: str, costs: list[str],
                                     monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(complexity.TimedBatch, "time_once", lambda self: pytest.fail("measured"))
    assert cli.main([*costs, *mistake]) == Exit.USAGE
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_a_figure_without_matplotlib_is_refused_at_once(costs: list[str], monkeypatch: pytest.MonkeyPatch,
                                                        capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main([*costs, "--plot", "cost.svg"]) == Exit.USAGE
    assert ".[report]" in capfd.readouterr().err
    assert not list(Path().iterdir())


# --- scaling


@pytest.fixture
def scale(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """One and two ranks over a text whose updates are one micro-batch each."""
    monkeypatch.setattr(scaling, "cases", lambda cfg: [(1, 1), (2, 1)])
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    yield ["bench", "scaling", "--rounds", "1", *words[2:], "data.max_tokens=4000"]
    os.environ.clear()  # a measurement leaves there what its ranks need
    os.environ |= before


@pytest.mark.slow
def test_ranks_are_measured_on_a_small_text(scale: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*scale, "--json"]) == Exit.OK
    one, two = json.loads(capfd.readouterr().out)
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert min(one["tgt_tokens_per_s"], two["tgt_tokens_per_s"], two["sum_s"]) > 0


@pytest.mark.parametrize(("mistake", "code", "message"), [
    ("trainer.tokens_per_update=1", Exit.USAGE, "trainer.devices=2: no update has more than 1 pair"),
    ("data.tgt=fr", Exit.DATA, "its other side, train.fr, is missing"),
    ("data.max_length=2", Exit.DATA, "no training pair is left"),
    ("trainer.strategy=fsdp2", Exit.USAGE, "trainer.strategy=fsdp2"),
    ("trainer.devices=2", Exit.USAGE, "trainer.devices=2: bench scaling compares 1, 2, 4 and more ranks")])
def test_what_ranks_would_refuse_costs_no_measurement(mistake: str, code: Exit, message: str, scale: list[str],
                                                      monkeypatch: pytest.MonkeyPatch,
                                                      capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(scaling, "measure", lambda cfg: pytest.fail("measured"))
    assert cli.main([*scale, mistake]) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]

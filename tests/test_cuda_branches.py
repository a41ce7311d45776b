"""No choice by device that was never made CUDA's way: each is listed, with the test that makes it so on the CPU.

Most tests play a GPU (`played_cuda.py`), and compare what it finds with what a CPU does, or with a formula. A new
choice in the source fails here until it has a row.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toys import ROOT

SRC, TESTS = ROOT / "src" / "minitx", ROOT / "tests"
KINDS = {"cpu", "cuda", "gpu"}  # a comparison with one of them is a choice, and so are these calls and names
ASKS = re.compile(r"torch\.cuda\.(is_\w+|device_count)|torch\.autocast|has_varlen|on_cpu")
KNOWS = re.compile(r"(self\.)?on_gpu")
GRADIENTS = "models/test_on_cuda.py::test_loss_and_gradients_are_the_cpus"
TRAINS = "system/test_on_cuda.py::test_it_trains_as_a_cpu_does_and_says_what_the_gpu_says"
BY_ITSELF = "system/test_on_cuda.py::test_by_itself_it_takes_the_gpu_and_its_units_for_bf16"
DOCTOR = "cli/test_doctor.py::test_a_gpu_is_listed_timed_and_chosen_and_its_memory_is_that_of_the_updates"
SEARCHED = "models/test_on_cuda.py::test_what_is_found_is_what_a_cpu_finds"
BITS = "models/test_on_cuda.py::test_tricks_with_the_bits_of_bf16_are_the_cpus_alone"
DROPOUT = "models/test_on_cuda.py::test_dropout_keeps_the_mean_and_is_that_of_its_seed"
LOAD = "test_load.py::test_a_gpu_is_taken_by_its_name_or_where_it_is_there"
JOIN = "distributed/test_ranks.py::test_a_rank_on_a_gpu_takes_its_own_and_gradients_travel_over_nccl"
WITHOUT_NVML = "profiling/test_utilisation.py::test_without_nvml_a_gpu_has_no_figures_and_the_reason_is_told"
CASES = "experiments/costs/test_scaling.py::test_gpus_are_doubled_and_share_the_cores"
PROFILE = "cli/test_bench.py::test_on_a_gpu_kernels_are_timed_by_the_gpu"
SHEET = "profiling/test_peak.py::test_a_gpu_that_is_on_no_sheet_is_measured_and_other_programs_of_the_cpu_do_not_matter"
ENOUGH = {  # of the cases of a test of many: between them they make all of its choices
    GRADIENTS: [f"[{family}-{kernels}]" for family in ("transformer rope", "lstm dot", "linear_rnn rglru")
                for kernels in ("side by side", "packed")],
    BY_ITSELF: ["[lstm_attention]"]}
CHOICES: dict[str, tuple[list[str], str, str]] = {  # by function: its choices, the test, what is compared
    "data.batch.to_device": (
        ["torch.device(device).type == 'cuda'", "x.device.type == 'cpu'"],
        "data/test_batch.py::test_what_goes_to_a_gpu_is_pinned_first_and_nobody_waits", "what was pinned and moved"),
    "decoding.search._best": (["logits.device.type == 'cpu'"], SEARCHED, "the CPU's, in float64"),
    "decoding.search._likeliest": (["logits.device.type != 'cpu'"], BITS, "the first of the largest"),
    "distributed.bandwidth._choose_device": (
        ["trainer.accelerator != 'cpu'", "torch.cuda.is_available()", "on_gpu"],
        "distributed/test_bandwidth.py::test_each_rank_takes_a_gpu_where_there_is_one", "the device"),
    "distributed.bandwidth.sum_s.time_sums": (
        ["device.type == 'cuda'"],
        "distributed/test_bandwidth.py::test_a_sum_is_over_when_the_gpu_is_through", "seconds of a made-up clock"),
    "distributed.fsdp.shard": (
        ["device.type == 'cpu'"],
        "distributed/test_fsdp.py::test_a_mean_is_a_sum_that_is_divided_on_cpus_alone", "what FSDP was told"),
    "distributed.ranks.join": (["on_gpu", "on_gpu"], JOIN, "GPU and backend"),
    "distributed.worker.run_rank": (
        ["device.type == 'cuda'"],
        "distributed/test_worker.py::test_a_rank_joins_with_the_device_that_it_was_given", "how it joined"),
    "experiments.costs.doctor.Doctor.devices": (["torch.cuda.device_count()"], DOCTOR, "what the driver answers"),
    "experiments.costs.doctor.Doctor.precision": (
        ["torch.cuda.is_available()", "self.device.type == 'cpu'"],
        "cli/test_doctor.py::test_a_gpu_without_bf16_is_told_of_fp16_if_it_has_units_for_that", "the line"),
    "experiments.costs.doctor.Doctor.ranks": (
        ["self.device.type == 'cuda'", "torch.cuda.device_count()"],
        "cli/test_doctor.py::test_more_ranks_than_gpus_are_not_started", "the line"),
    "experiments.costs.doctor.Doctor.size_facts": (["self.device.type == 'cuda'"], DOCTOR, "what the driver answers"),
    "experiments.costs.doctor.has_fp16_units": (
        ["device.type == 'cuda'"],
        "cli/test_doctor.py::test_a_gpu_without_bf16_is_told_of_fp16_if_it_has_units_for_that", "the line"),
    "experiments.costs.dry_run.dry_run": (["device.type == 'cuda'"], DOCTOR, "what was reset"),
    "experiments.costs.scaling.ExchangeTimer.on_train_batch_end": (
        ["pl_module.device.type == 'cuda'"],
        "experiments/costs/test_scaling.py::test_a_block_is_over_when_the_gpu_is_through",
        "seconds of a made-up clock"),
    "experiments.costs.scaling.cases": (
        ["device.type == 'cuda'", "device.type == 'cuda'", "torch.cuda.device_count()"], CASES, "ranks and threads"),
    "experiments.costs.step.KernelProfiler._own": (["self.on_gpu"], PROFILE, "a made-up profile"),
    "experiments.costs.step.KernelProfiler.on_train_batch_start": (
        ["pl_module.device.type == 'cuda'", "self.on_gpu"], PROFILE, "a made-up profile"),
    "experiments.studies.growth.free_bytes": (
        ["device.type == 'cuda'"],
        "experiments/studies/test_growth.py::test_what_is_free_is_the_gpus_or_the_machines",
        "what the driver answers"),
    "models.attention.attend": (["on_cpu(q)"], GRADIENTS, "the CPU's, in float64"),
    "models.attention.attend_from_step": (["on_cpu(q)"], SEARCHED, "the CPU's, in float64"),
    "models.attention.cross_attention": (
        ["has_varlen(q, q.shape[1] // n_heads)", "on_cpu(q)"], GRADIENTS, "the CPU's, in float64"),
    "models.attention.has_varlen": (
        ["q.device.type == 'cuda'"],
        "models/test_attention.py::test_the_kernel_for_packed_sentences_is_not_asked_for_what_it_refuses",
        "what flash attention takes"),
    "models.attention.self_attention": (
        ["has_varlen(qkv, qkv.shape[1] // (3 * n_heads))", "on_cpu(qkv)"],
        GRADIENTS, "the CPU's, in float64"),
    "models.dropout.Dropout.add": (["on_cpu(y)"], DROPOUT, "mean and seed"),
    "models.dropout.Dropout.forward": (["on_cpu(x)"], DROPOUT, "mean and seed"),
    "models.layers.LayerNorm.forward": (["x.device.type == 'cpu'"], GRADIENTS, "the CPU's, in float64"),
    "models.layers.has_packed": (["on_cpu(x)"], BITS, "the answer"),
    "models.layers.has_tiles": (["on_cpu(x)"], BITS, "the answer"),
    "models.recurrence.Recurrence.forward": (["x.device.type == 'cuda'"], GRADIENTS, "the CPU's, in float64"),
    "models.scan._Scan.forward": (["on_cpu(b)"], GRADIENTS, "the CPU's, in float64"),
    "profiling.peak.copy_gb_per_s": (
        ["device.type == 'cpu'"], "profiling/test_peak.py::test_a_gpu_copies_all_at_once", "bytes a second"),
    "profiling.peak.peak": (["device.type == 'cuda'"], SHEET, "what is measured"),
    "profiling.peak.sweep": (["device.type != 'cpu'"], SHEET, "what is measured"),
    "profiling.peak.synchronize": (
        ["device.type == 'cuda'"],
        "profiling/test_peak.py::test_a_gpu_is_waited_for_before_the_clock_is_read", "seconds of a made-up clock"),
    "profiling.provenance.hardware": (
        ["device.type == 'cuda'"],
        "profiling/test_provenance.py::test_a_gpu_is_named_and_its_own_memory_counted", "what the driver answers"),
    "profiling.provenance.peak_memory_gib": (
        ["device.type == 'cuda'"],
        "profiling/test_provenance.py::test_a_gpu_is_named_and_its_own_memory_counted", "what the driver answers"),
    "profiling.timers.Phases.__init__": (
        ["device.type == 'cuda'"],
        "profiling/test_timers.py::test_events_are_read_when_they_are_passed_and_never_waited_for", "made-up events"),
    "profiling.utilisation.Watch.__init__": (
        ["device.type == 'cpu'", "device.type == 'cuda'"], WITHOUT_NVML, "the reasons"),
    "profiling.utilisation.Watch.usage": (
        ["self.device.type != 'cpu'", "self.device.type == 'cpu'"], WITHOUT_NVML, "the reasons"),
    "serving.engine._device": (
        ["torch.cuda.device_count()",
         "name not in ('cpu', 'cpu:0', *apple, *(['cuda'] if gpus else []), *(f'cuda:{i}' for i in range(gpus)))"],
        LOAD, "translations with the CPU's"),
    "serving.engine._export": (
        ["device not in ('auto', 'cpu', 'cpu:0')"],
        "serving/test_engine.py::test_what_an_export_does_not_have_is_refused", "what is said"),
    "training.build.build_trainer": (["device.type == 'cuda'"], TRAINS, "losses with the CPU's"),
    "training.build.choose_device": (
        ["torch.cuda.device_count()", "torch.cuda.is_available()", "torch.cuda.is_available()",
         "trainer.accelerator == 'cpu'", "trainer.accelerator == 'gpu'"],
        "training/test_build.py::test_a_gpu_is_taken_where_it_is_there_and_each_rank_has_its_own", "the device"),
    "training.build.choose_precision": (
        ["device.type == 'cpu'", "device.type == 'cuda'", "torch.cuda.is_bf16_supported(including_emulation=False)"],
        "training/test_build.py::test_a_gpu_computes_in_bf16_where_it_has_units_for_it", "the precision"),
    "training.in_process._process_restored": (
        ["torch.cuda.device_count()", "torch.cuda.is_initialized()"], BY_ITSELF, "losses with the CPU's"),
    "training.loss._LinearCrossEntropy.forward": (
        ["features.device.type == 'cpu'"],
        "training/test_loss.py::test_a_gpu_takes_more_rows_at_once", "torch's loss, in float64"),
    "training.process._on_gpu": (
        ["cfg.trainer.accelerator == 'gpu'"],
        "training/test_process.py::test_before_torch_is_there_a_gpu_is_known_by_its_device_file", "the answer"),
    "training.summary._warn_of_ranks": (["prepared.device.type == 'cpu'"], TRAINS, "losses with the CPU's"),
    "training.summary.taken_by_others": (
        ["result.device == 'cpu'"], "training/test_summary.py::test_a_disturbed_run_says_so_in_a_plain_line",
        "the line"),
    "utils.autograd.on_cpu": (["x.device.type == 'cpu'"], GRADIENTS, "the CPU's, in float64"),
}
RECORDER = """\
import os

seen = set()


def made(function, choice, value):
    place = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0], function, choice, str(bool(value))
    if place not in seen:
        seen.add(place)
        with open(os.environ["MADE"], "a", encoding="utf-8") as file:
            file.write("\\t".join(place) + "\\n")
    return value
"""


def choice(node: ast.AST) -> ast.expr | None:
    """Return the choice that a node is or makes, if it is one."""
    if isinstance(node, ast.Compare):
        return node if KINDS & {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)
                                and isinstance(part.value, str)} else None
    if isinstance(node, ast.Call):
        return node if ASKS.fullmatch(ast.unparse(node.func)) else None
    test = node.test if isinstance(node, (ast.If, ast.IfExp)) else None
    return test if test is not None and KNOWS.fullmatch(ast.unparse(test)) else None


class Choices(ast.NodeTransformer):
    """Find the choices of a module, by function, and have each recorded when it is made."""

    def __init__(self, module: str) -> None:
        self.owner, self.found = [module], list[tuple[str, str]]()

    def visit(self, node: ast.AST) -> ast.AST:
        named = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        self.owner += [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
        found = choice(node)
        self.generic_visit(node)
        if found is not None:
            key = ".".join(self.owner), ast.unparse(ast.parse(ast.unparse(found)))
            self.found.append(key)
            call = ast.parse(f"__import__('minitx.recorder').recorder.made{(*key, 0)}", mode="eval").body
            assert isinstance(call, ast.Call)
            call.args[2] = found
            if found is node:
                node = call
            else:
                node.test = call  # type: ignore[attr-defined]
        if named:
            self.owner.pop()
        return node


FAKE = {"fake_cuda.py", "libraries.py", "recorder.py"}  # a GPU of their own: they take no other way on a real one


def choices() -> Iterator[tuple[Path, Choices, ast.Module]]:
    """Yield each file of the source with its choices, and the same code that records them."""
    for path in sorted(path for path in SRC.rglob("*.py") if path.name not in FAKE):
        finder = Choices(".".join(path.relative_to(SRC).with_suffix("").parts))
        tree = finder.visit(ast.parse(path.read_text("utf-8")))
        assert isinstance(tree, ast.Module)
        yield path, finder, ast.fix_missing_locations(tree)


def is_cudas(function: str, text: str) -> bool:
    """Return what a choice comes to where the way of a GPU is taken."""
    comes_from_a_cpu = function == "data.batch.to_device"
    return comes_from_a_cpu or not re.search(r"on_cpu|(==|not in) (\('cpu'|'cpu')", text)


def test_every_choice_is_listed() -> None:
    found = sorted(key for _, finder, _ in choices() for key in finder.found)
    assert found == sorted((function, text) for function, (texts, _, _) in CHOICES.items() for text in texts)


@pytest.mark.parametrize("test", sorted({test for _, test, _ in CHOICES.values()}))
def test_the_tests_that_are_listed_are_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert name in {node.name for node in ast.parse((TESTS / path).read_text("utf-8")).body
                    if isinstance(node, ast.FunctionDef)}


@pytest.mark.slow
def test_each_test_makes_its_choices_as_a_gpu_does(tmp_path: Path) -> None:
    """In a copy of the source that writes down each choice as it is made."""
    for entry in ROOT.iterdir():
        if entry.name != "src":
            (tmp_path / entry.name).symlink_to(entry)
    for path, _, tree in choices():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(ast.unparse(tree), "utf-8")
    for path in SRC.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            (tmp_path / path.relative_to(ROOT)).symlink_to(path)
    (tmp_path / "src/minitx/recorder.py").write_text(RECORDER, "utf-8")
    names = sorted({test for _, test, _ in CHOICES.values()})
    tests = [f"tests/{name}{case}" for name in names for case in ENOUGH.get(name, [""])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=quick", "-o",
         f"pythonpath={tmp_path}/src tests tests/system scripts docs", *tests], cwd=ROOT, capture_output=True,
        text=True, check=False, env=os.environ | {"MADE": str(tmp_path / "made"), "PYTHONPATH": str(tmp_path / "src")})
    assert done.returncode == 0, done.stdout
    lines = [line.split("\t") for line in (tmp_path / "made").read_text("utf-8").splitlines()]
    made = {(test.partition("[")[0], function, text, value) for test, function, text, value in lines}
    missing = [f"{function}: {text}: {test}" for function, (texts, test, _) in CHOICES.items() for text in texts
               if (f"tests/{test}", function, text, str(is_cudas(function, text))) not in made]
    assert not missing

"""`minitx doctor`: what it says is what a run has; what stands in a run's way is a line and an exit code."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from played_cuda import CUDA, NAME, played_gpu
from served import COMMAND, ENVIRON

from minitx.cli import main as cli
from minitx.cli.train import main
from minitx.config.compose import compose
from minitx.config.saved import freeze
from minitx.config.schema import resolve_size
from minitx.data.tokenizer import TokenizerPair
from minitx.experiments.costs import doctor, dry_run
from minitx.experiments.costs.dry_run import DryRun
from minitx.models.registry import build_model
from minitx.profiling.peak import Peak
from minitx.training import launch, process
from minitx.training.task import TranslationTask
from minitx.utils.errors import Exit

QUICK = ("model.size=toy", "trainer.tokens_per_update=256", "data.max_tokens=128", "data.max_length=64",
         "trainer.max_steps=50")


@pytest.fixture
def words(small_text: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A config over a small text, in an empty folder, with nothing measured in earnest."""
    monkeypatch.setattr(doctor, "dry_run", lambda *_: DryRun([2.0, 2.0, 2.5], 500, 0.5, 3 * 2**20, 2**20))
    monkeypatch.setattr(doctor, "matmul_gflops", lambda device, dtype, *shape: 100.0)
    monkeypatch.setattr(doctor, "peak", lambda device, precision: Peak(0.1, "measured"))
    return ["doctor", "data=files", f"data.dir={small_text}", *QUICK]


def examined(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = cli.main([*words, "--json"])
    return code, json.loads(capfd.readouterr().out)


@pytest.mark.slow
def test_the_real_command_leaves_nothing_but_the_cache(tmp_path: Path) -> None:
    environ = ENVIRON | {"MINITX_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([*COMMAND, "doctor", "experiment=quick"], cwd=tmp_path, env=environ, capture_output=True,
                          text=True, check=False)
    assert done.returncode == Exit.OK, done.stderr
    assert os.listdir(tmp_path) == ["cache"]
    sections = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    *sections, too_few, last = sections
    assert sections == ["versions", "devices", "precision", "storage", "text", "cost"]
    assert too_few.startswith("warning: 20 updates are too few: this text needs about ")
    assert last == "no problem found"
    assert "Traceback" not in done.stderr


def test_what_it_says_is_what_a_run_has(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "dry_run", dry_run.dry_run)
    for name, value in (("MAX_UPDATES", 2), ("WARM_UP", 1)):
        monkeypatch.setattr(dry_run, name, value)
    code, found = examined(words, capfd)
    assert (code, found["problems"]) == (Exit.OK, [])
    cfg = compose(words[1:])
    lines = [(tmp_path / f"text/train.{lang}").read_text().splitlines() for lang in ("en", "de")]
    tokenizers = TokenizerPair.train(list(zip(*lines, strict=True)), cfg.tokenizer.vocab_size, True)
    assert found["text"]["vocabulary"] == [tokenizers.src.vocab_size] * 2
    with torch.device("meta"):
        model = build_model(cfg.model, src_vocab_size=tokenizers.src.vocab_size,
                            tgt_vocab_size=tokenizers.tgt.vocab_size)
    cost, params = found["cost"], sum(p.numel() for p in model.parameters())
    assert cost["params"] == params
    assert cost["checkpoint_mib"] == pytest.approx(12 * params / 2**20, rel=0.01)
    assert cost["storage_mib"] == pytest.approx(3 * cost["checkpoint_mib"] + 5 * 4 * params / 2**20, rel=0.01)
    assert cost["update_s"]["measured"] == 2
    assert found["text"]["train"]["pairs"] == 200
    assert found["text"]["valid"] == found["text"]["test"] == 20
    assert found["precision"]["cpu"] == {"fp32_gflops": 100.0, "bf16_gflops": 100.0}
    assert os.listdir() == []


def test_times_follow_from_the_median_update(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    cost = examined(words, capfd)[1]["cost"]
    assert cost["update_s"] == {"median": 2.0, "low": 2.0, "high": 2.25, "measured": 3}
    assert cost["epoch_s"] == 2.0 * cost["updates_per_epoch"]
    assert cost["tgt_tokens_per_s"] == pytest.approx(500 / 6.5)
    assert cost["run_s"] == 100.0
    assert cost["storage_mib"] == 3 * cost["checkpoint_mib"] + 5 == 14


@pytest.mark.parametrize(("steps", "said"), [
    (50, "50 updates are too few"), (300, ""), (5000, "5,000 updates are far too many, ")])
def test_a_run_that_does_not_suit_its_text_is_warned_of(steps: int, said: str, words: list[str],
                                                        capfd: pytest.CaptureFixture[str]) -> None:
    more = [f"trainer.max_steps={steps}", "optim.warmup_steps=10"]
    code, found = examined([*words, *more], capfd)
    assert (code, found["problems"]) == (Exit.OK, [])
    assert [warning[:len(said)] for warning in found["warnings"]] == [said] * bool(said)
    assert cli.main([*words, *more]) == Exit.OK
    assert (f"\nwarning: {said}" in capfd.readouterr().out) == bool(said)


def test_minutes_bound_a_run_and_a_run_may_be_open(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert examined([*words, "trainer.max_minutes=0.01"], capfd)[1]["cost"]["run_s"] == pytest.approx(0.6)
    open_end = ["trainer.max_steps=null", "trainer.patience=3", "optim.schedule=constant"]
    assert examined([*words, *open_end], capfd)[1]["cost"]["run_s"] is None


def test_versions_that_differ_are_marked(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "constraints.txt").write_text(f"# x==1\ntorch=={torch.__version__.partition('+')[0]}\nnumpy==0.0.1\n")
    monkeypatch.setattr(doctor, "CONSTRAINTS", tmp_path / "constraints.txt")
    assert cli.main(words) == Exit.OK
    marked = [line for line in capfd.readouterr().out.splitlines() if "constraints.txt says" in line]
    assert len(marked) == 1
    assert marked[0].split()[0] == "numpy"
    assert marked[0].endswith("differs: constraints.txt says 0.0.1")


def test_the_pinned_versions_are_read() -> None:
    pinned = doctor.read_constraints(doctor.CONSTRAINTS)
    assert {"torch", "lightning", "hydra-core"} <= pinned.keys()
    assert doctor.read_constraints(Path("no/such")) == {}


def test_a_disk_too_small_is_a_problem(words: list[str], monkeypatch: pytest.MonkeyPatch,
                                       capfd: pytest.CaptureFixture[str]) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**20, 0, 2**20))
    code, found = examined(words, capfd)
    assert code == Exit.STORAGE
    (problem,) = found["problems"]
    assert problem.startswith(f"{Path.cwd()}: has 1.0 MiB free, the run needs 14.0; ")
    assert problem.endswith("make room, name run_dir elsewhere, or lower checkpoint.keep")


def test_where_no_run_can_be_is_a_problem_and_the_rest_is_still_told(
        words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    Path("full").mkdir()
    Path("full/of").touch()
    for run_dir, why in (("file/run", "cannot be made, {here}/file is a file; name another"),
                         ("full", "is not empty; name a new folder, or add resume=auto")):
        code, found = examined([*words, f"run_dir={run_dir}"], capfd)
        assert (code, found["problems"]) == (Exit.STORAGE, [f"run_dir={run_dir}: " + why.format(here=Path.cwd())])
        assert found["cost"]["params"] > 0
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, found = examined(words, capfd)
    assert (code, found["problems"]) == (Exit.STORAGE, [f"run_dir=runs/NAME: cannot be made, {Path.cwd()} is not "
                                                        "writable; name another"])


def test_a_run_that_goes_on_is_held_to_its_own_settings_and_vocabulary(words: list[str],
                                                                       capfd: pytest.CaptureFixture[str]) -> None:
    words += ["run_dir=run", "resume=auto", "init_from=gone"]
    cfg = compose(words[1:])
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/checkpoints/step-00000005-a.safetensors").touch()
    freeze(replace(cfg, model=resolve_size(cfg.model)), Path("run"))
    own = TokenizerPair.train([("1 2", "2 1")] * 9, None, True)
    own.save(Path("run"))
    before = sorted(Path("run").rglob("*"))
    code, found = examined(words, capfd)
    assert (code, found["problems"]) == (Exit.OK, [])
    assert found["text"]["vocabulary"] == [own.src.vocab_size] * 2
    assert found["cost"]["params"] > 0
    code, found = examined([*words, "optim.lr=0.5", "trainer.max_steps=60"], capfd)
    assert code == Exit.USAGE
    (problem,) = found["problems"]
    assert problem.startswith("run_dir=run: was begun with other settings; ")
    assert problem.splitlines()[1:] == ["  optim.lr: was 0.001, asked 0.5"]
    assert sorted(Path("run").rglob("*")) == before


def test_what_is_warned_of_is_a_line_like_any_other(words: list[str], tmp_path: Path,
                                                    capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text/train.en"
    path.write_bytes(b"\xff" + path.read_bytes())
    assert cli.main(words) == Exit.OK
    (message,) = [line for line in capfd.readouterr().err.splitlines() if "train.en" in line]
    assert message.startswith(f"minitx: warning: {path}: line 1 is not UTF-8 ")


def test_memory_is_said_to_be_that_of_what_it_is_of(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "trainer.accelerator=cpu"]) == Exit.OK
    (message,) = [line for line in capfd.readouterr().out.splitlines() if "peak_memory_gib" in line]
    assert message.split() == ["peak_memory_gib", "0.50", "of", "this", "process", "so", "far,", "text", "included"]


def test_what_the_banner_of_a_run_leaves_out_is_told(words: list[str], monkeypatch: pytest.MonkeyPatch,
                                                     capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MINITX_ALLOCATOR", "keeps freed memory")
    _, found = examined(words, capfd)
    assert found["devices"]["allocator"] == "keeps freed memory"
    assert found["precision"]["peak"] == {"tflops": 0.1, "source": "measured"}


@pytest.mark.parametrize(("speed", "text"), [(0.31, "0.31 GFLOP/s"), (9.94, "9.9 GFLOP/s"), (12.6, "13 GFLOP/s"),
                                             (1234.5, "1,234 GFLOP/s")])
def test_a_slow_format_is_not_said_to_stand_still(speed: float, text: str) -> None:
    assert doctor.gflops_text(speed) == text


def test_unreadable_text_is_a_problem_and_nothing_is_measured(words: list[str], tmp_path: Path,
                                                             capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text/valid.de").write_text("one line\n")
    assert cli.main(words) == Exit.DATA
    out, _ = capfd.readouterr()
    assert out.count("\nproblem: ") == 1
    assert "valid" in out.partition("\nproblem: ")[2]
    assert "params" not in out
    assert "storage\n" in out


def test_a_gpu_that_is_not_there_outweighs_the_rest(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "text/valid.de").unlink()
    code, found = examined([*words, "trainer.accelerator=gpu"], capfd)
    assert code == Exit.USAGE
    assert len(found["problems"]) == 2
    assert found["problems"][0].startswith("trainer.accelerator=gpu: torch sees no GPU here")


def test_a_gpu_is_listed_timed_and_chosen_and_its_memory_is_that_of_the_updates(
        words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    reset: list[torch.device] = []
    monkeypatch.setattr(doctor, "dry_run", dry_run.dry_run)
    for name, value in (("MAX_UPDATES", 2), ("WARM_UP", 1)):
        monkeypatch.setattr(dry_run, name, value)
    with played_gpu(reset_peak_memory_stats=reset.append):
        assert cli.main(words) == Exit.OK
        text = capfd.readouterr().out
        code, found = examined(words, capfd)
    assert (code, found["problems"]) == (Exit.OK, [])
    assert found["devices"]["cuda:0"] == {"gpu": NAME, "memory_gib": 80.0, "free_gib": 79.0}
    assert found["devices"]["chosen"] == "cuda:0"
    assert found["precision"]["cuda"] == {"fp32_gflops": 100.0, "bf16_gflops": 100.0}
    assert found["precision"]["chosen"] == "bf16-mixed"
    assert "bf16-mixed, by auto: the GPU has units for bf16 products" in text
    assert reset == [CUDA] * 2, "what came before the updates is not counted"
    assert found["cost"]["peak_memory_gib"] == 3.0
    assert "3.00  of the updates" in text


@pytest.mark.parametrize(("capability", "hint"), [
    ((7, 0), " (trainer.precision=16-mixed would use those for fp16)\n"), ((6, 1), "\n")])
def test_a_gpu_without_bf16_is_told_of_fp16_if_it_has_units_for_that(
        capability: tuple[int, int], hint: str, words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Volta has some; Pascal, before it, has none of either kind."""
    with played_gpu(is_bf16_supported=lambda including_emulation=True: False,
                    get_device_capability=lambda device=None: capability):
        assert cli.main(words) == Exit.OK
    assert f"32-true, by auto: the GPU has no units for bf16 products{hint}" in capfd.readouterr().out


def test_more_ranks_than_gpus_are_not_started(words: list[str], monkeypatch: pytest.MonkeyPatch,
                                              capfd: pytest.CaptureFixture[str]) -> None:
    """One GPU suffices for the config, but not for two ranks to meet on."""
    monkeypatch.setattr(doctor, "run_ranks", lambda *_: pytest.fail("they would fail on the GPU that is not there"))
    with played_gpu():
        code, found = examined([*words, "--distributed"], capfd)
    assert code == Exit.USAGE
    assert found["problems"] == ["--distributed: 2 ranks take a GPU each, and torch sees 1 here; "
                                 "trainer.accelerator=cpu lets them meet on the CPU"]


def test_memory_that_does_not_suffice_is_a_problem(words: list[str], monkeypatch: pytest.MonkeyPatch,
                                                   capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(doctor, "dry_run", dry_run.dry_run)
    monkeypatch.setattr(TranslationTask, "losses", fail)
    code, found = examined(words, capfd)
    assert code == Exit.USAGE
    assert found["problems"][0].startswith("out of memory at a micro-batch of ")


@pytest.mark.parametrize("mistake", ["model.dropuot=0.1", "data=file", "optim.lr=fast", "data.dir=no/such data=files",
                                  "trainer.strategy=fsdp2", "init_from=no/such", "seed=1,2", "model.d_model=7",
                                  "trainer.max_steps=null", "=", "resume=auto"])
def test_a_slip_gets_the_same_line_as_from_train(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINITX_ALLOCATOR", "as it is")  # else the process would begin again
    monkeypatch.setattr(sys, "argv", ["train.py", *mistake.split()])
    with pytest.raises(SystemExit) as left:
        main()
    wanted = capfd.readouterr().err
    assert cli.main(["doctor", *mistake.split()]) == left.value.code == Exit.USAGE
    assert capfd.readouterr() == ("", wanted)
    assert wanted.count("\n") == 1
    assert os.listdir() == []


def test_the_command_tunes_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(process, "tune_allocator", lambda cfg: seen.append(cfg) or sys.exit(0))
    monkeypatch.setattr(sys, "argv", ["minitx", "doctor"])
    with pytest.raises(SystemExit):
        cli.main()
    assert len(seen) == 1


def test_the_best_format_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "matmul_gflops", lambda device, dtype, *shape: 10.0 * (dtype == torch.bfloat16) + 10.0)
    monkeypatch.setattr(doctor, "peak", lambda device, precision: Peak(0.1, "measured"))
    for precision, units, words in (("auto", "AVX-512", "bf16-mixed, by auto: the CPU has units for bf16 products"),
                                    ("auto", None, "32-true, by auto: the CPU has no units for bf16 products"),
                                    ("64-true", "AMX", "64-true, as asked")):
        monkeypatch.setattr("minitx.training.build.bf16_units", lambda units=units: units)
        cfg = launch.resolve(compose([f"trainer.precision={precision}"]))
        patient = doctor.Doctor(cfg, SimpleNamespace())  # type: ignore[arg-type]
        patient.device = torch.device("cpu")
        facts = {fact.name: fact.text for fact in patient.precision()}
        assert facts["chosen"] == words
        assert facts["cpu"] == "fp32 10 GFLOP/s, bf16 20 GFLOP/s (2.0 times)"

"""A quarter of an hour on a GPU, rehearsed: what fails, hangs, dies or is killed costs its own row and nothing else."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import gpu_merge
import gpu_run
import gpu_updates
import pytest
from gpu_rows import Job, Row, Running, Sheet, Unseen, take, work_through
from hypothesis import given
from hypothesis import strategies as st
from toys import ROOT

from minitx.experiments.studies import gpu
from minitx.utils.console import Console
from minitx.utils.errors import UserError

# A part's program whose jobs are these; it imports no torch, so that it starts at once.
WORKER = """
import argparse, os, sys, time
from pathlib import Path
import gpu_rows
from gpu_rows import Job, Unseen, end_at_eof, work_through
from minitx.utils.console import Console

parser = argparse.ArgumentParser()
parser.add_argument("part")
for name in ("--out", "--scratch", "--device", "--commit"):
    parser.add_argument(name)
parser.add_argument("--seconds", type=float)
for name in ("--toys", "--leader"):
    parser.add_argument(name, action="store_true")
args = parser.parse_args()
end_at_eof()
gpu_rows.HANGS_S = 0.5
marks = Path(args.out).parent

def fine():
    return "fine", {"pid": os.getpid()}

def raises():
    raise ValueError("no such\\nkernel")

def dies():
    os.kill(os.getpid(), 9)

def hangs():
    time.sleep(600)

def unseen():
    raise Unseen("needs a GPU")

def slow():
    if not (marks / "second").exists():
        time.sleep(600)
    return "slow", {}

def breaks():
    (marks / "broken").touch()
    return "fine", {}

def is_usable():
    return not (marks / "broken").exists()

PARTS = {
    "checks": [Job("first", fine, 0), Job("raises", raises, 0), Job("dies", dies, 0), Job("hangs", hangs, 0),
               Job("unseen", unseen, 0), Job("too long", fine, 1000), Job("last", fine, 0)],
    "updates": [Job("first", fine, 0), Job("slow", slow, 300), Job("last", fine, 0)],
    "constants": [Job("breaks", breaks, 0), Job("last", fine, 0)],
}
start = time.monotonic()
if args.part not in PARTS:
    sys.exit("no such part")
ok = work_through(PARTS[args.part], Path(args.out), {"toys": True, "device": "cpu", "git_sha": None, "git_dirty": None},
                  start + args.seconds, Console(sys.stdout), is_usable)
(marks / "broken").unlink(missing_ok=True)
sys.exit(not ok)
"""
ENVIRON = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'scripts'}"}


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", ENVIRON["PYTHONPATH"])
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    return path


def run(worker: Path, out: Path, *words: str) -> int:
    return gpu_run.main(["--device", "cpu", "--toys", "--out", str(out), *words], worker)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_fails_hangs_or_dies_costs_its_own_row(worker: Path, tmp_path: Path,
                                                    capfd: pytest.CaptureFixture[str]) -> None:
    assert run(worker, tmp_path / "out", "--parts", "checks", "--seconds", "60") == 1
    sheet = Sheet.read(tmp_path / "out/checks.json")
    rows = {row.name: row for row in sheet.rows}
    assert {name: row.status for name, row in rows.items()} == {
        "first": "ok", "raises": "failed", "dies": "failed", "hangs": "failed", "unseen": "unseen", "last": "ok"}
    assert rows["raises"].text == "ValueError: no such kernel"
    assert rows["dies"].text == "its process was ended by SIGKILL"
    assert rows["hangs"].text.startswith("hung")
    assert sheet.missing == ["too long"]
    assert not any(is_alive(row.values["pid"]) for row in (rows["first"], rows["last"]))
    said = capfd.readouterr().out
    assert "6 rows in" in said
    assert "3 failed: raises; dies; hangs" in said


def test_a_device_that_no_longer_answers_gets_a_new_process(worker: Path, tmp_path: Path) -> None:
    assert run(worker, tmp_path, "--parts", "constants", "--seconds", "60") == 0
    assert [row.status for row in Sheet.read(tmp_path / "constants.json").rows] == ["ok", "ok"]


def test_a_part_without_rows_does_not_hold_up_the_next(worker: Path, tmp_path: Path,
                                                       capfd: pytest.CaptureFixture[str]) -> None:
    assert run(worker, tmp_path, "--parts", "trainings,constants", "--seconds", "60") == 0
    assert "trainings: its process ended with 1 before its first row" in capfd.readouterr().out
    assert Sheet.read(tmp_path / "constants.json").is_done


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle_and_started_again(number: signal.Signals, worker: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--device", "cpu", "--toys", "--out", str(out), "--parts", "constants,updates", "--seconds", "600"]
    program = f"import sys, gpu_run; from pathlib import Path; sys.exit(gpu_run.main({words}, Path({str(worker)!r})))"

    def begun() -> bool:
        running = Sheet.read(out / "updates.json").running
        return running is not None and running.name == "slow"

    with subprocess.Popen([sys.executable, "-c", program], env=ENVIRON) as whole:
        wait_for(begun)
        whole.send_signal(number)
        assert whole.wait() == (143 if number == signal.SIGTERM else -9)
    before = {part: Sheet.read(out / f"{part}.json") for part in ("constants", "updates")}
    wait_for(lambda: not is_alive(before["updates"].rows[0].values["pid"]))
    assert [row.name for row in before["updates"].rows] == ["first"]
    (out / "second").touch()
    assert before["updates"].running is not None  # and a day passes
    replace(before["updates"], running=replace(before["updates"].running, since=0.0)).write(out / "updates.json")
    assert subprocess.run([sys.executable, "-c", program], env=ENVIRON).returncode == 0
    assert Sheet.read(out / "constants.json") == before["constants"]
    after = Sheet.read(out / "updates.json")
    assert after.rows[0] == before["updates"].rows[0]
    assert [(row.name, row.status) for row in after.rows] == [("first", "ok"), ("slow", "ok"), ("last", "ok")]


@pytest.mark.slow
def test_a_row_that_the_end_of_the_time_cuts_off_is_not_failed(worker: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_run, "LATE_S", 0.2)
    worker.write_text(WORKER.replace("HANGS_S = 0.5", "HANGS_S = 60").replace("slow, 300", "slow, 0.1"))
    assert run(worker, tmp_path, "--parts", "updates", "--seconds", "6") == 0
    assert Sheet.read(tmp_path / "updates.json").missing == ["slow", "last"]
    (tmp_path / "second").touch()
    assert run(worker, tmp_path, "--parts", "updates", "--seconds", "60") == 0
    assert Sheet.read(tmp_path / "updates.json").is_done


def test_failed_rows_are_tried_again_if_asked_for(worker: Path, tmp_path: Path) -> None:
    run(worker, tmp_path, "--parts", "checks", "--seconds", "60")
    first = {row.name: row for row in Sheet.read(tmp_path / "checks.json").rows}
    worker.write_text(WORKER.replace('raise ValueError("no such\\nkernel")', 'return "mended", {}'))
    run(worker, tmp_path, "--parts", "checks", "--seconds", "60", "--retry")
    second = {row.name: row for row in Sheet.read(tmp_path / "checks.json").rows}
    assert second["raises"].text == "mended"
    assert second["first"] == first["first"]


def test_rows_of_other_conditions_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    jobs = [Job("one", lambda: ("", {})), Job("two", lambda: ("", {}))]
    conditions = {"git_sha": "a", "hardware": {"capability": (9, 0)}}
    with pytest.raises(ZeroDivisionError):
        work_through([jobs[0]], path, conditions, time.monotonic() + 60, Console(), lambda: bool(1 / 0))
    assert work_through(jobs, path, conditions, time.monotonic() + 60, Console(), lambda: True)
    assert Sheet.read(path).is_done
    with pytest.raises(UserError, match="of another git_sha; take another folder"):
        work_through(jobs, path, conditions | {"git_sha": "b"}, time.monotonic() + 60, Console(), lambda: True)


NAMES = st.sampled_from("abcdefgh")
ROWS = st.builds(Row, NAMES, st.sampled_from(["ok", "failed", "unseen"]), st.text(), st.floats(0, 1e6),
                 st.dictionaries(st.text(), st.none() | st.integers() | st.lists(st.text())))
SHEETS = st.builds(Sheet, st.dictionaries(NAMES, st.integers()), st.lists(NAMES, unique=True), st.lists(ROWS),
                   st.none() | st.builds(Running, NAMES, st.floats(0, 1e9), st.floats(0, 1e3)))


@given(SHEETS)
def test_a_sheet_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, sheet: Sheet) -> None:
    path = tmp_path_factory.mktemp("sheet") / "part.json"
    assert Sheet.read(path) == Sheet()
    sheet.write(path)
    assert Sheet.read(path) == sheet
    assert set(sheet.missing) == set(sheet.planned) - {row.name for row in sheet.rows}
    assert not any(row.status == "failed" for row in sheet.without_failed().rows)


def test_a_job_that_cannot_be_done_here_is_no_failure() -> None:
    def work() -> Any:
        raise Unseen("needs a GPU")

    assert (take(Job("it", work)).status, take(Job("it", work)).text) == ("unseen", "needs a GPU")


def test_shares_of_the_time_pass_on_what_is_left(tmp_path: Path) -> None:
    plan = gpu_run.Plan(list(gpu_run.SHARES), tmp_path, time.monotonic() + 540, [], Console())
    shares = {part: plan.share_s(part) for part in plan.parts}
    assert sum(gpu_run.SHARES.values()) == 540
    assert shares["checks"] == pytest.approx(80, abs=1)
    assert shares["trainings"] == pytest.approx(540, abs=1)  # nothing comes after it
    Sheet(planned=["one"], rows=[Row("one", "ok", "", 1, {})]).write(plan.path("checks"))
    Sheet(planned=["one"], rows=[Row("one", "ok", "", 1, {})]).write(plan.path("constants"))
    assert plan.share_s("updates") == pytest.approx(540 * 215 / (215 + 200), abs=1)


@pytest.mark.slow
def test_without_a_gpu_it_says_so_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("here is a GPU")
    with pytest.raises(SystemExit, match="2"):
        gpu_run.main(["--out", str(tmp_path)])
    assert capfd.readouterr().err.splitlines()[-1].startswith("gpu_run: error: torch sees no GPU here")


@pytest.mark.parametrize(("words", "what"), [
    (["--device", "cpu"], "add --toys"), (["--parts", "checks,chekcs"], "chekcs: is none of checks, updates")])
def test_a_wrong_option_is_one_line(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu_run.main(words)
    assert what in capsys.readouterr().err


# --- the file for results/

CONDITIONS = {"toys": False, "device": "cuda", "hardware": {"gpu": "NVIDIA H200 NVL"}, "versions": {"torch": "2.11.0"},
              "git_sha": "a" * 40, "git_dirty": False}
UPDATE = dict.fromkeys(gpu_merge.UPDATE, 1.0) | {"system": "lstm", "not_measured": {"busy_pct": "NVML"}}


def written(folder: Path, **changes: Any) -> Path:
    """A run's folder, some of its conditions changed in the second part."""
    Sheet(CONDITIONS, ["gradients"], [Row("gradients", "ok", "off by 0", 1.0, {})]).write(folder / "checks.json")
    rows = [Row("lstm, base", "ok", "", 1.0, UPDATE), Row("gnmt, big", "unseen", "not in this version", 0.0, {})]
    Sheet(CONDITIONS | changes, ["lstm, base", "gnmt, big", "last"], rows).write(folder / "updates.json")
    return folder


def test_a_merged_file_holds_what_was_measured_and_says_what_was_not(tmp_path: Path) -> None:
    merged = gpu_merge.merge(written(tmp_path, git_sha="b" * 40))
    assert merged["updates"] == [{name: UPDATE[name] for name in gpu_merge.UPDATE}]
    assert [(row["name"], row["status"]) for row in merged["not_measured"]] == [
        ("gnmt, big", "unseen"), ("last", "late")]
    assert [merged["code"][part]["git_sha"][0] for part in ("checks", "updates")] == ["a", "b"]
    assert merged["conditions"]["versions"] == {"torch": "2.11.0"}
    assert gpu_merge.name_of(merged) == "H200-NVL.json"


def test_parts_of_different_machines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="checks.json and updates.json differ in versions"):
        gpu_merge.merge(written(tmp_path, versions={"torch": "2.13.0"}))


def test_a_rehearsal_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="holds no rows"):
        gpu_merge.merge(tmp_path)
    Sheet(CONDITIONS | {"toys": True}, ["one"], [Row("one", "ok", "", 1.0, {})]).write(tmp_path / "checks.json")
    assert gpu_merge.main([str(tmp_path)]) == 2
    assert "rehearsal" in capsys.readouterr().err
    assert gpu_merge.main([str(tmp_path), "--out", str(tmp_path / "found.json")]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["checks"] == {"one": ""}


# --- the real parts, on toys


@pytest.mark.slow
def test_updates_and_constants_on_toys(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--toys", "--parts", "updates,constants", "--out", str(tmp_path), "--seconds", "900"]
    assert gpu_run.main(words) == 0
    merged = gpu_merge.merge(tmp_path)
    assert {(row["system"], row["size"]) for row in merged["updates"]} >= {
        (system, size) for system in ("lstm", "transformer") for size in ("small", "base", "big")}
    assert all(row["update_ms"] > 0 and row["tgt_tokens_per_s"] > 0 and row["sentences"] and row["params"]
               for row in merged["updates"])
    assert merged["constants"].keys() >= {"launches", "host", "copies", "products, bf16", "recurrence, fp16", "AdamW"}


@pytest.mark.slow
def test_a_training_on_toys(tmp_path: Path) -> None:
    import gpu_trainings
    import torch

    [job] = [job for job in gpu_trainings.jobs(torch.device("cpu"), True, tmp_path) if job.name == "transformer"]
    row = take(job)
    assert row.status == "ok", row.text
    assert row.values["steps"] == 20
    assert [record["step"] for record in row.values["valid"]] == [10, 20]


@pytest.mark.slow
def test_the_shell_script_finds_its_wheels_first(tmp_path: Path) -> None:
    for name in ("scripts", "src"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    wheel = tmp_path / "wheels/tabulate-99-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "tabulate-99.dist-info"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("tabulate.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tabulate\nVersion: 99")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any")
        archive.writestr(f"{info}/RECORD", "")
    program = "import sys, importlib.metadata as m, minitx; print(m.version('tabulate'), minitx.__file__, sys.argv)"
    (tmp_path / "scripts/gpu_run.py").write_text(program)
    for _ in range(2):  # the second time it is installed already
        done = subprocess.run([tmp_path / "scripts/gpu_run.sh", "--toys"], env=os.environ | {"PYTHON": sys.executable},
                              capture_output=True, text=True, cwd=tmp_path.parent)
        assert re.search(rf"^99 {tmp_path}/src/minitx/__init__.py \[.*'--toys'\]$", done.stdout, re.MULTILINE), done


def test_updates_that_are_measured_are_those_that_are_predicted() -> None:
    assert {name: (shape.sentences, shape.src_len, shape.tgt_len) for name, shape in gpu_updates.SHAPES.items()} == {
        name: (case.sentences, case.length, case.length) for name, case in gpu.CASES.items()}
    for name, words in gpu.SYSTEMS.items():
        assert gpu_updates.SYSTEMS[name] == list(words)

"""What turns logs, clocks and windows into tables; no peer is needed."""

import json
import os
import subprocess
import sys
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[2]))  # benchmarks/ is no part of the package

from benchmarks import __main__ as main
from benchmarks import measure, tables, venvs, watch, work
from benchmarks.peers import minitx, pymarian
from benchmarks.venvs import PEERS, ROOT, module
from benchmarks.watch import CpuTime, Worker, WorkerFailed
from minitx.utils.console import Console
from minitx.utils.errors import UserError

MARIAN = ("[2026-11-22 05:44:46] Ep. 1 : Up. 1,004 : Sen. 1,014 : Cost 9.52249622 * 3,171 @ 3,171 after 16,525 : "
          "Time 1.40s : 2260.48 words/s : gNorm 4.2722\n")


@pytest.mark.parametrize(("line", "counted"), [
    (MARIAN, (1004, 16525)), ("[2026-11-22 05:44:46] Seen 1,014 samples\n", None), ("\n", None)])
def test_marians_log(line: str, counted: tuple[int, int] | None) -> None:
    assert pymarian.progress(line) == counted


def test_records_of_metrics_jsonl() -> None:
    record = {"event": "train", "step": 4, "train_s": 2.5, "tokens": 300, "epoch": 0.2, "loss": 9.0}
    assert minitx.progress(record, 100) == {"seconds": 2.5, "updates": 4, "tokens": 300, "tokens_per_sentence": 15.0}
    assert minitx.progress({"event": "valid", "step": 4, "train_s": 2.5, "bleu": 7.0}, 100) == {
        "seconds": 2.5, "updates": 4, "bleu": 7.0}
    assert minitx.progress({"event": "horizon", "step": 4, "train_s": 2.5}, 100) is None


def test_a_growing_file_is_followed_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    code = ("import sys, time\nfile = open(sys.argv[1], 'w')\n"
            "for part in ('{\"step\": 1}\\n{\"st', 'ep\": 2}\\n'):\n"
            "    file.write(part); file.flush(); time.sleep(0.3)")
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as process:
        assert list(minitx.follow(path, process)) == [{"step": 1}, {"step": 2}]


def test_clocks_are_read_and_others_are_what_is_left() -> None:
    hz = watch.TICKS_PER_S
    assert watch.machine_s(f"cpu  {hz} {hz} {hz} 999 888 0 0 {2 * hz} 0 0\ncpu0 1") == 5  # not idle, not waiting
    stat = watch.stat_fields(f"7 (a) b (c) S 1 7 42 0 -1 0 0 0 0 0 {hz} {hz} 0 {3 * hz} 20")
    assert (stat[3], watch.own_s(stat)) == ("42", 5.0)
    cores = os.cpu_count() or 1
    assert CpuTime(0, 0, 0).foreign_pct(CpuTime(10, 10 * cores, 9 * cores)) == pytest.approx(10)


def run_worker(code: str, folder: Path) -> Worker:
    return Worker([sys.executable, "-c", code], cwd=folder, log=folder / "log", threads=1, silence_s=20)


def test_a_window_begins_warm_and_ends_in_time(tmp_path: Path) -> None:
    code = ("import json, itertools\nfor i in itertools.count(1):\n"
            "    print(json.dumps({'seconds': i, 'updates': i, 'tokens': 100 * i * i}), flush=True)")
    with run_worker(code, tmp_path) as worker:
        row = measure.training_window(worker, 10, 5, 20.0, lambda line, left_s: None)
    assert worker.process.returncode is not None  # it went on for ever
    assert (row["seconds"], row["updates"]) == (5, 5)
    assert row["tokens_per_s"] == 100 * (16**2 - 11**2) / 5 == 20 * row["sentences_per_s"]
    assert row["foreign_pct"] >= 0
    assert 0 < row["peak_gib"] < 1


def test_a_failure_is_told_with_the_last_words(tmp_path: Path) -> None:
    with run_worker("raise SystemExit('no such option')", tmp_path) as worker, pytest.raises(
            WorkerFailed, match="ended with code 1; no such option"):
        list(worker.lines())


def test_one_failure_stops_nobody_else_and_a_disturbed_window_comes_again(tmp_path: Path) -> None:
    saved: list[int] = []
    shares = iter([9.0, 9.0, 1.0, 2.0])

    def measured(system: measure.System) -> list[measure.Row]:
        if system.name == "b":
            raise WorkerFailed("broken")
        return [{"tokens_per_s": 1.0, "sentences_per_s": 1.0, "peak_gib": 1.0, "foreign_pct": next(shares)}]

    bench = measure.Bench(tmp_path, tmp_path, 2, (), Console(StringIO()), lambda rows: saved.append(len(rows)))
    rows = measure._in_turn(bench, [measure.System("a", "fp32"), measure.System("b", "fp32")], 2, measured)
    assert [(row["system"], row["round"], row.get("disturbed", row.get("error"))) for row in rows] == [
        ("a", 1, True), ("a", 1, True), ("a", 1, False), ("b", 1, "broken"), ("a", 2, False)]
    assert saved[-1] == len(rows)


def test_quality_scores_what_peers_wrote_and_takes_minitx_at_its_word(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for name in ("train", "valid", work.TEST):
        for lang in (work.SRC, work.TGT):
            (text / f"{name}.{lang}").write_text("one two three four five\n", encoding="utf-8")
    peer = {"seconds": 60.0, "updates": 9, "tokens": 1}
    lines = {"hf": [peer, peer | {"hypotheses": str(text / f"{work.TEST}.{work.TGT}")}, {"never": "read"}],
             "minitx": [{"seconds": 6.0, "updates": 25, "bleu": 100.0}]}

    def worker(self: measure.Bench, system: measure.System, action: str, **job: object) -> Worker:
        told = "\n".join(map(json.dumps, lines[system.name]))
        assert (Path(str(job["text"])) == text) == (system.name == "hf")
        return run_worker(f"print({told!r})", tmp_path)

    monkeypatch.setattr(measure.Bench, "worker", worker)
    results = tmp_path / "results" / "peers.json"
    about = {"machine": {"cpu": "Xeon", "cores": 2}, "threads": 2, "commit": "0", "date": "today", "settings": "."}
    save = partial(main._save, results, "quality", about, False)
    bench = measure.Bench(tmp_path, text, 2, (), Console(StringIO()), save)
    rows = measure.quality(bench, [measure.System("hf", "bf16")], 1, 1, [0.5])
    assert [row["curve"] for row in rows] == [[[60.0, 9, 100.0]], [[6.0, 25, 100.0]]]
    stamp = {"date": "today", "commit": "0"}
    assert json.loads(results.read_text())["quality"]["rows"] == [row | stamp for row in rows]
    assert "| hf | bf16 | 1.0 | 9 | 100.0 | 0.1 minutes (0.10 of its time) |" in tables.render(
        json.loads(results.read_text()))


def window(system: str, precision: str, tokens_per_s: float, *, per_sentence: float = 16, disturbed: bool = False,
           ) -> tables.Row:
    return {"system": system, "precision": precision, "tokens_per_s": tokens_per_s, "tokens_per_update": 4096,
            "sentences_per_s": tokens_per_s / per_sentence, "peak_gib": 2.0, "disturbed": disturbed,
            "date": "2026-11-22", "commit": "0123abcd"}


def test_a_command_is_told_without_what_is_true_of_one_machine_alone() -> None:
    asked = ["quality", "--keep", "--peers", "/somewhere", "--systems", "hf:bf16", "--results=/tmp/x", "--data", "d"]
    assert main.command_line(asked) == "python -m benchmarks quality --keep --systems hf:bf16"


def test_rows_of_other_systems_are_kept_when_asked(tmp_path: Path) -> None:
    path, about = tmp_path / "peers.json", {"machine": {"cpu": "Xeon", "cores": 2}, "threads": 2, "settings": "."}
    both = [window("minitx", "auto", 1000), window("hf", "bf16", 1000)]
    main._save(path, "training", about | {"date": "1 May", "commit": "a"}, False, both)
    later = about | {"date": "2 May", "commit": "b"}
    main._save(path, "training", later, True, [window("minitx", "auto", 2000)])
    rows = json.loads(path.read_text())["training"]["rows"]
    assert [(row["system"], row["tokens_per_s"], row["date"]) for row in rows] == [
        ("hf", 1000, "1 May"), ("minitx", 2000, "2 May")]
    assert "minitx b; 1 May/2 May." in tables.render(json.loads(path.read_text()))
    main._same_machine(path, "training", later)
    with pytest.raises(UserError, match="rows of threads 2, not 4"):
        main._same_machine(path, "training", later | {"threads": 4})
    main._save(path, "training", later, False, [window("minitx", "auto", 2000)])
    assert len(json.loads(path.read_text())["training"]["rows"]) == 1


def test_the_training_table_shows_medians_of_quiet_windows() -> None:
    rows = [window("minitx", "auto", 6000, per_sentence=20), window("minitx", "fp32", 3000),
            window("hf", "bf16", 1990), window("hf", "bf16", 10, disturbed=True), window("hf", "bf16", 2010),
            window("eole", "fp32", 1000, disturbed=True),
            {"system": "joeynmt", "precision": "fp32", "error": "ended with code 1; a | b"}]
    lines = tables.training_table(rows).split("\n")
    assert len({line.count("|") for line in lines}) == 1
    assert lines[4] == ("| hf | bf16 | 4,096 | 2,000 (1,990-2,010) | 125.0 | 2.0 GiB | 2 | 3.00 (2.40) | 1.50 (1.50) |")
    assert "1, all disturbed | 6.00 (4.80)" in lines[5]
    assert "ended with code 1; a / b" in lines[6]


def test_the_decoding_table_lets_each_choose_its_batch() -> None:
    rows: list[tables.Row] = [
        {"system": system, "precision": "fp32", "batch_size": size, "sentences_per_s": speed, "peak_gib": 1.0,
         "disturbed": False} for system, size, speed in [
             ("minitx", 64, 400.0), ("minitx", 128, 500.0), ("eole", 64, 250.0), ("eole", 128, 200.0)]]
    rows += [row | {"beam_size": 5, "sentences_per_s": row["sentences_per_s"] / 10} for row in rows]
    rows += [rows[-1] | {"batch_size": 1, "sentences_per_s": 1.25}]
    lines = tables.decoding_table(rows).split("\n")
    assert lines[3] == "| eole | fp32 | 1 | - | 250 | 250 (batch 64) | 1.0 GiB | 1 | 2.00 | 2.00 |"
    assert lines[5] == "| eole | fp32 | 5 | 1.2 | 25 | 25 (batch 64) | 1.0 GiB | 1 | 2.00 | 2.00 |"


@pytest.mark.parametrize(("system", "precision"), [
    ("minitx", "fp32"), ("ctranslate2", "fp32"), ("ctranslate2", "int8")])
def test_search_is_timed_with_each_beam_at_each_batch_size(system: str, precision: str, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "VOCAB", 262)
    monkeypatch.setattr(work, "MOST_BATCHES", 3)
    lines = [f"{a} {b} {c}" for a in range(5) for b in range(5) for c in range(5)]
    (tmp_path / "pieces").mkdir()
    for name, kept in (("train", lines * 4), (f"pieces/{work.TEST}", lines[:20])):
        for lang in (work.SRC, work.TGT):
            (tmp_path / f"{name}.{lang}").write_text("\n".join(kept) + "\n")
    (tmp_path / "joint.pieces").write_text("\n".join(["<unk>", "<pad>", "<s>", "</s>", *"01234"]) + "\n")
    job = work.Job(text=str(tmp_path), folder=str(tmp_path), precision=precision, threads=1, batch_sizes=(2, 8),
                   beam_sizes=(1, 3))
    seen: list[dict[str, float]] = []
    module(system).decode(job, lambda **values: seen.append(values))
    assert [(row["beam_size"], row["batch_size"], row["sentences"]) for row in seen if "sentences" in row] == [
        (beam, size, sentences) for beam in (1, 3) for size, sentences in ((2, 5), (8, 20))]


@given(st.integers(1, 2000), st.integers(1, 3000))
def test_rows_are_chosen_at_equal_distances(rows: int, most: int) -> None:
    chosen = work.evenly(rows, most)
    assert min(rows, most) / 2 <= len(chosen) <= most
    assert len({b - a for a, b in zip(chosen, chosen[1:], strict=False)}) <= 1
    assert list(chosen) == list(range(rows)) or most < rows


def test_the_quality_table_says_when_minitx_was_as_good() -> None:
    rows = [{"system": "hf", "precision": "bf16", "minutes": 20, "curve": [[600, 390, 25.0], [1200, 748, 50.0]]},
            {"system": "joeynmt", "precision": "fp32", "minutes": 20, "curve": [], "error": "silent"},
            {"system": "minitx", "precision": "auto", "minutes": 7, "curve": [[60, 50, 5.0], [180, 150, 26.0]]}]
    lines = tables.quality_table(rows).split("\n")
    assert lines[2] == "| hf | bf16 | 10.0 | 390 | 25.0 | 3.0 minutes (0.30 of its time) |"
    assert lines[3].endswith("| 50.0 | - |")
    assert "silent" in lines[4]
    assert lines[-1] == "minitx, a run of 7 minutes, BLEU at minute: 5.0 at 1.0, 26.0 at 3.0."
    rows[-1]["curve"] += [[186, 160, 25.0], [239, 190, 27.0]]  # of the fourth minute, its last
    assert tables.quality_table(rows).endswith("5.0 at 1.0, 26.0 at 3.0, 27.0 at 4.0.")


def test_all_tables_make_a_page() -> None:
    about = {"machine": {"cpu": "Xeon", "cores": 2}, "threads": 2, "commit": "0123abcd", "date": "2026-11-22",
             "settings": "Medians."}
    page = tables.render({"training": about | {"rows": [window("hf", "fp32", 1000, disturbed=True)]},
                          "quality": about | {"rows": []}})
    assert "## Training" in page
    assert "## Decoding" not in page
    assert "1 disturbed by others" in page


@pytest.mark.slow
@given(st.builds(work.Job, text=st.text(), folder=st.text(), precision=st.text(), threads=st.integers(),
                 translate_every_s=st.none() | st.floats(allow_nan=False, allow_infinity=False),
                 batch_sizes=st.lists(st.integers()).map(tuple), options=st.lists(st.text()).map(tuple)))
def test_a_job_survives_the_command_line(job: work.Job) -> None:
    assert work.Job.parse(job.json()) == job


def test_ids_become_words_again(tmp_path: Path) -> None:
    (tmp_path / "joint.pieces").write_text("<unk>\n<pad>\n<s>\n</s>\n▁a\nb\n▁c\n", encoding="utf-8")
    job = work.Job(text=str(tmp_path), folder="", precision="fp32", threads=1)
    assert job.words([work.BOS, 4, 5, 6, work.EOS, 4]) == "ab c"


@given(st.lists(st.lists(st.just(0), max_size=9), max_size=30), st.integers(1, 8))
def test_batches_hold_each_row_once_longest_first(rows: list[list[int]], size: int) -> None:
    batches = work.longest_first(rows, size)
    order = [i for batch in batches for i in batch]
    assert sorted(order) == list(range(len(rows)))
    assert [len(rows[i]) for i in order] == sorted(map(len, rows), reverse=True)
    assert all(len(batch) <= size for batch in batches)


def test_reports_are_not_mixed_with_what_libraries_print() -> None:
    code = "from benchmarks.work import Report; report = Report(); print('noise'); report(tokens=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (json.loads(done.stdout), done.stderr) == ({"tokens": 1}, "noise\n")


def test_a_peer_whose_requirements_cannot_be_met_is_installed_without_them(tmp_path: Path,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(venvs, "_run", lambda command, venv: commands.append(command))
    monkeypatch.setattr(venvs.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=""))
    venvs.install("joeynmt", tmp_path, Console(StringIO()))
    assert commands[-1][-2:] == ["--no-deps", "joeynmt==2.3.0"]


@pytest.mark.parametrize("system", ["minitx", *PEERS])
def test_every_adapter_can_be_asked_without_its_packages(system: str) -> None:
    peer = module(system)
    assert hasattr(peer, "train") == hasattr(peer, "PRECISIONS")
    assert hasattr(peer, "decode") == hasattr(peer, "DECODES_IN")
    assert all("==" in package for package in getattr(peer, "PACKAGES", ()))

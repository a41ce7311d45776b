"""A suite passes over what is done, goes on with what is not, and is not stopped by what fails."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from threading import Timer

import pytest
import yaml
from published import write_run

from minitx.config.compose import compose
from minitx.data.corpus import load_corpus
from minitx.experiments.reports.results import make_row
from minitx.experiments.suites import suite as suites
from minitx.experiments.suites.measured import measure_updates
from minitx.experiments.suites.suite import (
    SUITES,
    Job,
    State,
    Suite,
    child_process,
    expected_s,
    find_state,
    last_line,
    line,
    load,
    plan,
)
from minitx.experiments.suites.summary import side_by_side, summary
from minitx.runs.directory import held
from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError

NAMES = sorted(path.stem for path in SUITES.glob("*.yaml"))


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Two systems, two seeds each."""
    folder = tmp_path / "suite"
    folder.mkdir()
    spec = {"small": {"systems": ["experiment=synthetic_lstm", "experiment=quick model=lstm"], "seeds": [1, 2]}}
    (folder / "two.yaml").write_text(yaml.safe_dump(spec))
    monkeypatch.setattr(suites, "SUITES", folder)
    return load("two", "small", tmp_path / "runs")


def doing(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let each run be this program; `run_dir` and `system` stand for the job's."""
    def argv(job: Job) -> list[str]:
        about = f"import os, sys, time\nrun_dir, system = {str(job.run_dir)!r}, {job.system!r}\n"
        return [sys.executable, "-c", about + program]

    monkeypatch.setattr(Job, "argv", property(argv))
    monkeypatch.setattr(suites, "POLL_S", 0.05)


# --- those of conf/suite


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name == "verses" else pytest.mark.slow) for name in NAMES])
def test_each_size_of_each_suite_composes(name: str, tmp_path: Path) -> None:
    sizes = yaml.safe_load((SUITES / f"{name}.yaml").read_text())
    assert set(sizes) <= {"smoke", "small", "full"}
    for size in sizes:
        jobs = load(name, size, tmp_path)
        assert len(jobs) == len(sizes[size]["systems"]) * len(sizes[size]["seeds"])
        assert len({job.run_dir for job in jobs}) == len(jobs)


def test_the_headline_gives_four_systems_the_same_but_for_the_model(tmp_path: Path) -> None:
    jobs = load("headline", "small", tmp_path)
    assert len(jobs) == 12
    assert len({job.system for job in jobs[:4]}) == 4, "seed after seed"
    alike = {str(replace(job.cfg, model=jobs[0].cfg.model, choices=jobs[0].cfg.choices, seed=1)) for job in jobs}
    assert len(alike) == 1
    assert all(job.cfg.trainer.max_minutes == 10 and not job.cfg.trainer.stop_at_target for job in jobs)


# --- any


def test_jobs_are_what_a_person_would_type(jobs: list[Job], tmp_path: Path) -> None:
    assert [job.command for job in jobs] == [
        "python train.py experiment=synthetic_lstm", "python train.py experiment=quick model=lstm",
        "python train.py experiment=synthetic_lstm seed=2", "python train.py experiment=quick model=lstm seed=2"]
    assert [job.run_dir for job in jobs[:2]] == [tmp_path / "runs/synthetic_lstm.1", tmp_path / "runs/quick.lstm.1"]
    assert jobs[3].argv[:5] == [sys.executable, "-P", "-m", "minitx", "train"]
    assert jobs[3].argv[5:] == ["experiment=quick", "model=lstm", "seed=2", f"run_dir={tmp_path / 'runs/quick.lstm.2'}",
                                "resume=auto"]
    assert load("two", "small", tmp_path, ["trainer.max_steps=7"])[0].cfg.trainer.max_steps == 7


def test_a_folder_of_runs_may_have_any_name(jobs: list[Job], tmp_path: Path) -> None:
    run_dir = tmp_path / "Anna's [1] läufe, two" / "quick.lstm.1"
    assert compose(replace(jobs[1], run_dir=run_dir).argv[5:]).run_dir == str(run_dir)


@pytest.mark.parametrize(("name", "size", "why"), [
    ("tow", "small", "tow: no such suite; did you mean two?"), ("two", "huge", "two: has no size huge; it has small")])
def test_a_slip_is_one_line(name: str, size: str, why: str, jobs: list[Job], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why.replace("?", r"\?")):
        load(name, size, tmp_path)


def test_what_is_done_is_seen(jobs: list[Job], tmp_path: Path) -> None:
    first, _, second, _ = jobs
    assert find_state(first).state == "waiting"
    first.run_dir.mkdir(parents=True)
    assert find_state(first).state == "interrupted"
    write_run(second.run_dir, overrides=["seed=2"])
    assert find_state(second).state == "finished"
    row = make_row(second.run_dir)
    assert row.command == second.command
    assert find_state(second, [row]).state == "published"
    assert find_state(first, [row]).state == "interrupted", "another seed"
    priced = load("two", "small", tmp_path / "elsewhere", ["trainer.price_per_hour=2"])[2]
    state = find_state(priced, [row])
    assert (state.state, state.why) == ("published", ""), "a price is not what is trained"


def test_each_run_is_a_process_and_what_fails_does_not_stop_the_others(
        jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    doing(monkeypatch, """
print('as', system)
if system == 'synthetic_lstm':
    print('no text')
    sys.exit(3)
os.makedirs(run_dir)
"""[1:])
    shown = StringIO()
    suite = Suite(jobs, Console(shown))
    assert suite.run() == Exit.DATA
    assert [suite.states[job].state for job in jobs] == ["failed", "interrupted", "failed", "interrupted"]
    assert "exit code 3: no text (its output: " in shown.getvalue()
    assert jobs[1].log.read_text() == "as quick.lstm\n"


def test_a_second_call_trains_only_what_is_missing(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(jobs[0].run_dir)
    doing(monkeypatch, "os.makedirs(run_dir)")
    shown = StringIO()
    suite = Suite(jobs[:2], Console(shown))
    suite.run()
    assert not jobs[0].log.exists()
    assert jobs[1].log.exists()
    told = shown.getvalue().splitlines()[1].split()
    assert told[:5] == ["synthetic_lstm", "1", "finished", "3m05s", "10,397"]


def test_a_row_is_published_as_its_run_ends_and_is_then_done(jobs: list[Job], monkeypatch: pytest.MonkeyPatch,
                                                             tmp_path: Path) -> None:
    made = write_run(tmp_path / "made")
    doing(monkeypatch, f"os.rename({str(made)!r}, run_dir)")
    shown = StringIO()
    suite = Suite(jobs[:1], Console(shown), tmp_path / "results")
    assert suite.run() == Exit.OK
    assert suite.states[jobs[0]].state == "published"
    assert ": published\n" in shown.getvalue(), "where a reader who leaves ends nothing"
    (tmp_path / "runs").rename(tmp_path / "lost")
    again = Suite(jobs[:1], Console(StringIO()), tmp_path / "results")
    assert again.states[jobs[0]].state == "published"
    assert any(text.startswith("lstm") for text in summary(jobs[:1], again.states, tmp_path / "results")), "of its row"
    assert Suite(jobs[:1], Console(StringIO())).states[jobs[0]].state == "waiting", "whoever repeats it trains it"


def test_what_was_trained_without_being_published_is_published_and_not_trained(
        jobs: list[Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_run(jobs[0].run_dir)
    doing(monkeypatch, "sys.exit(1)")
    suite = Suite(jobs[:1], Console(StringIO()), tmp_path / "results")
    assert suite.run() == Exit.OK
    assert suite.states[jobs[0]].state == "published"


@pytest.mark.slow
def test_what_may_not_be_published_fails_each_time(jobs: list[Job], tmp_path: Path) -> None:
    write_run(jobs[0].run_dir, test_sets=["test"])
    for _ in range(2):
        suite = Suite(jobs[:1], Console(StringIO()), tmp_path / "results")
        assert suite.run() == Exit.USAGE
        assert "has no roles right for its table" in suite.states[jobs[0]].why


def test_what_no_table_shows_is_refused_before_it_is_trained(jobs: list[Job], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="experiment=quick: is in no table, so it is not published"):
        Suite(jobs[1:2], Console(StringIO()), tmp_path / "results").run()
    assert not jobs[1].log.exists()


def test_a_disturbed_run_is_shown_and_not_published(jobs: list[Job], tmp_path: Path) -> None:
    write_run(jobs[0].run_dir, other_cpu_pct=9.5)
    shown = StringIO()
    assert Suite(jobs[:1], Console(shown), tmp_path / "results").run() == Exit.OK
    assert " disturbed " in shown.getvalue()
    assert f"delete {jobs[0].run_dir} to train it again" in shown.getvalue()
    assert not (tmp_path / "results").exists()


def test_a_run_of_other_settings_is_not_taken_for_this_one(jobs: list[Job]) -> None:
    write_run(jobs[0].run_dir, overrides=["trainer.max_steps=9"])
    with pytest.raises(UserError, match="was trained with other settings; name another folder for these runs"):
        find_state(jobs[0])


def test_a_row_is_known_by_the_shortest_command_and_told_if_its_config_is_another(tmp_path: Path) -> None:
    """model=transformer is what the config has by itself, so no row's command says it."""
    job = load("headline", "small", tmp_path / "runs")[3]
    assert job.words == ("experiment=headline_small", "model=transformer")
    row = make_row(write_run(tmp_path / "run", "headline_small"))
    assert (find_state(job, [row]).state, find_state(job, [row]).why) == ("published", "")
    older = replace(row, result=replace(row.result, config_sha256="0" * 64))
    assert find_state(job, [older]).state == "published"
    assert "what conf/ says has changed since; delete the row to train it again" in find_state(job, [older]).why


def test_two_suites_do_not_train_in_one_folder(jobs: list[Job]) -> None:
    folder = jobs[0].run_dir.parent
    folder.mkdir()
    with held(folder), pytest.raises(UserError, match="another process is training there"):
        Suite(jobs, Console(StringIO())).run()


@pytest.mark.parametrize("word", ["seed=5", "run_dir=runs/mine", "+resume=auto"])
def test_what_the_suite_decides_is_not_overridden(word: str, jobs: list[Job], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the suite sets this itself"):
        load("two", "small", tmp_path, [word])


def test_what_nohup_has_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with child_process([sys.executable, "-c", ""], tmp_path / "log") as (child, signals):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            assert child.wait() == 0
        assert signals == []
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "gets"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM),
                                              (signal.SIGHUP, signal.SIGTERM)])
def test_a_signal_is_handed_on_once_and_ends_the_suite(number: int, gets: int, jobs: list[Job],
                                                       monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    doing(monkeypatch, f"""
import signal
got = []
signal.signal({int(gets)}, lambda *_: got.append(1))
open({str(tmp_path / 'ready')!r}, 'w').close()
while not got: time.sleep(0.01)
time.sleep(0.3)
sys.exit({128 + gets} if len(got) == 1 else 1)
""")

    def send() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    def ours(*_: object) -> None:
        pytest.fail("the suite did not take the signal")

    shown = StringIO()
    before = signal.signal(number, ours)  # where tests run under nohup, it would be ignored
    try:
        Timer(0, send).start()
        assert Suite(jobs, Console(shown)).run() == 128 + gets
        assert signal.getsignal(number) == ours
    finally:
        signal.signal(number, before)
    assert "stopped; the same command continues with synthetic_lstm, seed 1" in shown.getvalue()
    assert not jobs[1].log.exists()


def test_an_error_of_ours_leaves_no_process_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), child_process([sys.executable, "-c", "import time; time.sleep(60)"],
                                                         tmp_path / "log") as (child, _):
        raise ZeroDivisionError
    assert child.returncode == -signal.SIGTERM


def test_the_time_it_takes_is_what_it_took_before(jobs: list[Job]) -> None:
    first, other, second, _ = jobs
    states = {job: State("waiting") for job in jobs}
    assert expected_s(first, states) is None
    states[other] = State("finished", make_row(write_run(other.run_dir, "quick", ["model=lstm"], wall_s=30.0)).result)
    assert expected_s(first, states) == 30.0, "what another system took"
    states[first] = State("finished", make_row(write_run(first.run_dir, wall_s=200.0)).result)
    assert expected_s(second, states) == 200.0, "what another seed took"
    minutes = replace(second.cfg, trainer=replace(second.cfg.trainer, max_minutes=10.0))
    assert expected_s(replace(second, cfg=minutes), {}) == pytest.approx(648)
    told = list(plan(jobs, states))
    assert told[0].startswith("finished  ")
    assert told[2].split() == ["waiting", "3m20s", *shlex.split(second.command)]
    assert told[-1] == "2 of 4 to train: about 3m50s"


def test_what_is_not_known_is_said(jobs: list[Job]) -> None:
    assert list(plan(jobs, {job: State("waiting") for job in jobs}))[-1] == (
        "4 of 4 to train; of 4 it is not known how long; with --measure a few updates of each system tell")


def test_what_was_measured_is_told_with_what_it_leaves_out(jobs: list[Job]) -> None:
    states, measured = {job: State("waiting") for job in jobs}, {"synthetic_lstm": 60.0, "quick.lstm": 30.0}
    *_, total, about = plan(jobs, states, measured)
    assert total == "4 of 4 to train: about 3m00s"
    assert about == ("measured on this machine as it is now, updates alone: validation and the test sets come on top "
                     "(synthetic_lstm, quick.lstm)")
    assert [entry["expected_s"] for entry in json.loads(suites.as_json(jobs, states, measured))] == [60, 30, 60, 30]
    states[jobs[0]] = State("finished", make_row(write_run(jobs[0].run_dir, wall_s=200.0)).result)
    assert expected_s(jobs[2], states, measured) == 200.0, "a whole run of the same system knows better"
    assert expected_s(jobs[1], states, measured) == 30.0, "and another system's does not"


def test_the_doctor_examines_each_system_once(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = list[list[str]](), [{"cost": {"run_s": 12.5}}, {"cost": {"run_s": None}}]

    def examined(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        return subprocess.CompletedProcess(words, 0, json.dumps(answers[len(asked) - 1]), "")

    monkeypatch.setattr(subprocess, "run", examined)
    assert measure_updates(jobs, Console(StringIO())) == {"synthetic_lstm": 12.5}, "nothing bounds the other"
    assert [words[5:] for words in asked] == [["--json", *job.words] for job in jobs[:2]]


@pytest.mark.parametrize(("out", "err", "why"), [
    ('{"problems": ["data: no text here"]}', "", "data: no text here"),
    ("", "minitx: error: unknown key a=1\n", "unknown key a=1")])
def test_a_system_that_cannot_be_trained_cannot_be_measured(out: str, err: str, why: str, jobs: list[Job],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, Exit.DATA, out, err))
    with pytest.raises(UserError, match=f"^synthetic_lstm: cannot be measured: {why}$") as slip:
        measure_updates(jobs, Console(StringIO()))
    assert slip.value.code == Exit.DATA


def test_a_run_that_never_reached_its_goal_is_censored(jobs: list[Job]) -> None:
    result = make_row(write_run(jobs[0].run_dir, target_bleu=30.0, train_s=900.0)).result
    assert " > 15m00s " in line(jobs[0], State("finished", result))
    reached = replace(result, time_to_target_s=312.0)
    assert " 5m12s " in line(jobs[0], State("finished", reached))


def test_the_last_line_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"")
    assert last_line(log) == ""
    log.write_bytes(b"x\n" * 9999 + "step 7  größer\n\n \n".encode())
    assert last_line(log) == "step 7  größer"


def test_how_far_it_is_can_be_read_by_programs(jobs: list[Job]) -> None:
    found = json.loads(suites.as_json(jobs, {job: State("waiting") for job in jobs}))
    assert [entry["system"] for entry in found] == ["synthetic_lstm", "quick.lstm"] * 2
    assert found[3]["seed"] == 2
    assert found[3]["expected_s"] is None


def test_the_same_sentences_of_each_system_stand_side_by_side(jobs: list[Job]) -> None:
    states = {job: State("waiting") for job in jobs}
    assert list(side_by_side(jobs, states)) == [], "nothing is trained yet"
    other = replace(jobs[2], cfg=replace(jobs[2].cfg, choices=replace(jobs[2].cfg.choices, model="transformer",
                                                                      experiment="synthetic_transformer")))
    for job in (jobs[0], other):
        lines = load_corpus(job.cfg.data).pairs("test")
        (job.run_dir / "hypotheses").mkdir(parents=True)
        (job.run_dir / "hypotheses/test.de").write_text("".join(
            f"{job.cfg.choices.model} {n}\n" for n in range(len(lines))))
        states[job] = State("finished")
    head, *shown = side_by_side([jobs[0], other], states)
    assert head == "\n5 sentences of test, translated by each system (seed 1)"
    assert len(shown) == 5 * (1 + 4)
    places = [n * len(lines) // 5 for n in range(5)]
    for place, block in zip(places, range(0, 25, 5), strict=True):
        blank, source, reference, first, second = shown[block:block + 5]
        assert (blank, source, reference) == ("", f"source       {lines[place][0]}", f"reference    {lines[place][1]}")
        assert (first, second) == (f"lstm         lstm {place}", f"transformer  transformer {place}")
    (other.run_dir / "hypotheses/test.de").unlink()
    assert "no sentences side by side: " in list(side_by_side([jobs[0], other], states))[0]

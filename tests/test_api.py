"""minitx from Python: compose, train, evaluate, in a program that goes on with other things afterwards."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from served import Shouter
from toys import ROOT, write_digits
from zygote import Zygote

import minitx
from minitx.config.compose import compose
from minitx.training import in_process
from minitx.utils.errors import Exit, UserError

EXAMPLES = """\
import doctest, minitx, sys
found = {test.name: test for test in doctest.DocTestFinder().find(minitx)}
runner = doctest.DocTestRunner()
for name in ("compose", "train", "load", "evaluate"):  # each goes on with what those before it have made
    test = found[f"minitx.{name}"]
    assert test.examples, name
    runner.run(test)
sys.exit(runner.summarize().failed)
"""
TWICE = """\
import os, torch, minitx
before = dict(os.environ), torch.get_num_threads(), torch.get_rng_state()
words = ["data=files", "data.dir=text", "model.size=toy", "trainer.max_steps=2", "decode.max_length_ratio=0.3"]
first = minitx.train([*words, "trainer.threads=1"], "a run's")
assert (os.environ, torch.get_num_threads(), torch.equal(torch.get_rng_state(), before[2])) == (*before[:2], True)
second = minitx.train(minitx.compose(words), "second")
assert second.records("valid")[-1]["loss"] == first.records("valid")[-1]["loss"] > 0
assert os.fspath(first) == "a run's"
assert minitx.load(first).translate(["1 2"]) == minitx.load("second").translate(["1 2"])
assert max(first.result.time_split["startup"], second.result.time_split["startup"]) < 60, "not this process's age"
"""


NOTICES = """\
import warnings, minitx
warnings.simplefilter("error")  # python -W error
words = ["data=files", "data.dir=text", "model.size=toy", "trainer.max_steps=2", "decode.max_length_ratio=0.3"]
assert minitx.train(words, "run").result.status == "finished"
"""
MISSING = """\
import sys, minitx
try:
    minitx.train(["data=files", f"data.dir={sys.argv[1]}"])
except Exception as error:
    print(type(error).__name__, error)
print(sorted({"torch", "lightning", "datasets"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_the_examples_of_the_docstrings_are_true(zygote: Zygote, tmp_path: Path) -> None:
    done = zygote.run(["-c", EXAMPLES], program="python", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_program_trains_twice_and_is_as_it_was(zygote: Zygote, tmp_path: Path) -> None:
    write_digits(tmp_path / "text", train=60, other=10)
    done = zygote.run(["-c", TWICE], program="python", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_notice_ends_no_training_where_warnings_are_errors(zygote: Zygote, tmp_path: Path) -> None:
    write_digits(tmp_path / "text", train=60, other=10)
    with (tmp_path / "text/train.en").open("ab") as en, (tmp_path / "text/train.de").open("ab") as de:
        en.write(b"\xff\n")
        de.write(b"a b\n")
    done = zygote.run(["-c", NOTICES], program="python", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "minitx: warning: text/train.en: line 61 is not UTF-8" in done.stderr


@pytest.mark.parametrize(("folder", "line"), [("nowhere", "data.dir=nowhere: no such folder"),
                                              (".", ".: no train split for en-de: wants train.en and train.de")])
def test_text_that_is_missing_is_told_before_torch_is_imported(folder: str, line: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MISSING, folder], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=True)
    said, imported = done.stdout.splitlines()
    assert said.startswith(f"UserError {line}")
    assert imported == "[]"
    assert not list(tmp_path.iterdir())


def test_to_import_it_is_quick() -> None:
    """torch takes seconds, Hydra and PyYAML tenths of one."""
    code = "import sys, minitx; print(sorted({'torch', 'hydra', 'yaml', 'numpy', 'lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
                          capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_config_is_composed_as_on_the_command_line() -> None:
    assert minitx.compose(["model=lstm"]) == compose(["model=lstm"])
    assert minitx.compose() == compose([])
    with pytest.raises(TypeError, match=r"^overrides='model=lstm': is one string; pass a list of words such as \['mo"):
        minitx.compose("model=lstm")
    with pytest.raises(UserError, match="did you mean model.dropout"):
        minitx.compose(["model.dropuot=1"])


@pytest.mark.parametrize(("code", "raised"), [
    (Exit.OK, None), (Exit.DIVERGED, None), (Exit.INTERRUPTED, KeyboardInterrupt), (Exit.TERMINATED, SystemExit),
    (Exit.CRASH, UserError), (Exit.DATA, UserError)])
def test_how_a_training_ended_is_told(code: Exit, raised: type[BaseException] | None,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "launch_here", lambda cfg: (Path(str(cfg.run_dir)), int(code)))
    cfg = compose(["run_dir=mine"])
    if raised is None:
        assert in_process.train_in_process(cfg) == Path("mine")
        return
    with pytest.raises(raised) as caught:
        in_process.train_in_process(cfg)
    assert getattr(caught.value, "code", code) == code


def test_only_the_main_thread_of_one_process_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []

    def try_it() -> None:
        try:
            minitx.train()
        except UserError as error:
            refused.append(str(error))

    thread = Thread(target=try_it)
    thread.start()
    thread.join()
    monkeypatch.setattr(in_process, "outer_ranks", lambda: 4)
    try_it()
    assert [line.partition(":")[2].split(";")[0] for line in refused] == [
        " works only in the main thread, which receives signals",
        " this process is one of 4 ranks that torchrun or srun started, and each would train by itself"]


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no result.json; it is no run directory, or its training has not ended$"):
        minitx.Run.read(tmp_path)


class Quiet(Shouter):
    """One that is asked as `minitx.evaluate` asks."""

    def __init__(self, run_dir: Any, device: Any) -> None:
        super().__init__(run_dir, device, None)

    def translate(self, lines: list[str], **options: Any) -> list[str]:
        return super().translate(lines, **options, progress=lambda *_: None, warn=lambda *_: None)


def test_sentences_or_files_of_them_are_scored(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minitx, "load", Quiet)
    (tmp_path / "src").write_text("the dog sees the cat\n")
    for src in (tmp_path / "src", str(tmp_path / "src"), ["the dog sees the cat"], iter(["the dog sees the cat"])):
        score = minitx.evaluate(run_dir, src, ["THE DOG SEES THE CAT"])
        assert (round(score.bleu), score.sentences) == (100, 1)
    with pytest.raises(UserError, match="^src has 2 lines, ref has 1: they must pair line by line$"):
        minitx.evaluate(run_dir, ["a", "b"], ["c"])
    with pytest.raises(UserError, match="^src: no lines to score$"):
        minitx.evaluate(run_dir, [], [])

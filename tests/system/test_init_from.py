"""A run that starts from another's weights: it takes the vocabulary too, and later resumes without the other run."""

import hashlib
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file
from toys import write_digits
from trials import QUICK, weights
from zygote import Kill, Zygote

from minitx.data.source_text import SourceText
from minitx.runs.result import Result

AT_REST = ("trainer.max_steps=10", "optim.lr=1e-12", "optim.warmup_steps=0", "model.dropout=0")  # weights stay put


def argv(text: Path, run_dir: Path, *overrides: str) -> list[str]:
    return ["data=files", f"data.dir={text}", f"run_dir={run_dir}", *QUICK, "optim.ema_decay=0.9", *overrides]


@pytest.fixture(scope="module")
def donor(zygote: Zygote, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("donor") / "RUN"
    done = zygote.run(argv(text, run_dir, "trainer.max_steps=10"))
    assert done.returncode == 0, done.stderr
    return run_dir


def test_it_takes_weights_and_vocabulary_to_another_pair(zygote: Zygote, donor: Path,
                                                                          tmp_path: Path) -> None:
    other, run_dir = write_digits(tmp_path / "text", train=200, languages=("en", "fr")), tmp_path / "run"
    done = zygote.run(argv(other, run_dir, f"init_from={donor}", "data.tgt=fr", *AT_REST))
    assert done.returncode == 0, done.stderr
    assert f"joint of {donor}, whose weights it begins with" in done.stderr
    assert re.search(rf"^minitx: warning: init_from={donor}: its vocabulary is of en-de, the text is en-fr: "
                     r"\d\.\d tokens a word in en, \d\.\d tokens a word in fr$", done.stderr, re.MULTILINE)
    assert (run_dir / "tokenizer.json").read_bytes() == (donor / "tokenizer.json").read_bytes()
    before, after = (load_file(run / "model.safetensors") for run in (donor, run_dir))
    assert max(float((before[name] - after[name]).abs().max()) for name in before) < 1e-6
    result = Result.read(run_dir / "result.json")
    assert result.init_from_sha256 == hashlib.sha256((donor / "model.safetensors").read_bytes()).hexdigest()
    assert result.steps == 10
    known, before = SourceText.read(run_dir), SourceText.read(donor)
    assert known is not None is not before
    assert known.unread <= before.unread, "it has read that text, too"
    assert Result.read(donor / "result.json").init_from_sha256 is None


@pytest.mark.slow
def test_once_it_has_a_checkpoint_the_other_run_need_not_exist(zygote: Zygote, text: Path, donor: Path,
                                                               tmp_path: Path) -> None:
    ends = []
    for name, kill in (("whole", None), ("killed", Kill("after update", 8))):
        borrowed, run_dir = tmp_path / "borrowed", tmp_path / name
        if not borrowed.exists():
            donor.rename(borrowed)
        overrides = argv(text, run_dir, f"init_from={borrowed}", "trainer.max_steps=10", "resume=auto")
        done = zygote.run(overrides, kill)
        if kill:
            assert done.returncode == -9
            borrowed.rename(donor)
            done = zygote.run(overrides)
        assert done.returncode == 0, done.stderr
        ends.append((weights(run_dir), Result.read(run_dir / "result.json").init_from_sha256))
    assert ends[0] == ends[1]
    assert ends[0][1] is not None


def test_weights_that_do_not_fit_leave_nothing_behind(zygote: Zygote, text: Path, donor: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = zygote.run(argv(text, run_dir, f"init_from={donor}", "model.d_ff=64"))
    assert done.returncode == 2
    assert "write model.d_ff=32" in done.stderr
    assert not run_dir.exists()

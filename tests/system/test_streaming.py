"""A text in sixteen shards on two ranks, killed twice: every pair once, the same weights, constant memory."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from trials import QUICK, weights
from zygote import Done, Kill, Zygote

from minitx.training.process import MALLOC

FULL = os.environ.get("MINITX_FAULTS") == "full"  # make test-faults
PAIRS = 1_000_000 if FULL else 4_000
SHARDS, WINDOWS, DIGITS = 16, 4, 7
TOKENS_PER_UPDATE = 8192 if FULL else 256


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write numbers, digit by digit, some with a tail; the target is the source backwards. No two are the same."""
    folder = tmp_path_factory.mktemp("shards")
    lines = [" ".join(f"{n:0{DIGITS}}{'9' * (n % 5)}") for n in range(PAIRS)]
    cuts = np.linspace(0, PAIRS, SHARDS + 1).astype(int)
    parts = [(f"train-{i:05}-of-{SHARDS:05}", lines[a:b]) for i, (a, b) in enumerate(zip(cuts, cuts[1:], strict=False))]
    for name, part in [*parts, ("val", lines[:20]), ("test", lines[:20])]:
        for language, step in (("en", 1), ("de", -1)):
            (folder / f"{name}.{language}").write_text("".join(line[::step] + "\n" for line in part))
    return folder


def argv(shards: Path, run_dir: Path) -> list[str]:
    return ["data=files", f"data.dir={shards}", f"run_dir={run_dir}", *QUICK, "data.streaming=true",
            f"data.window_shards={SHARDS // WINDOWS}", f"trainer.tokens_per_update={TOKENS_PER_UPDATE}",
            f"data.max_tokens={TOKENS_PER_UPDATE * 5 // 8}", "resume=auto",
            "trainer.valid_every_n_steps=100_000", "checkpoint.every_n_steps=20", "data.clean.identical=false"]


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Runs with the allocator that train.py gives its own."""
    process = Zygote(tmp_path_factory.mktemp("zygote"), MALLOC)
    yield process
    process.close()


def check(done: Done) -> None:
    assert done.returncode == 0, done.stderr


Note = tuple[int, int, list[list[int]]]  # update, KiB, sources


def notes(folder: Path) -> list[list[Note]]:
    """Read the first epoch's notes of each process, in the order in which they started."""
    lives = []
    for path in sorted(folder.iterdir()):
        lines = (line.split("\t") for line in path.read_text().splitlines())
        lives.append([(int(update), int(kib), json.loads(sources)) for epoch, update, kib, sources in lines
                      if epoch == "0"])
    return lives


@pytest.mark.slow
def test_every_pair_is_trained_on_once_whatever_happens(zygote: Zygote, shards: Path, tmp_path: Path) -> None:
    runs = {name: tmp_path / name for name in ("killed", "uninterrupted")}
    for name in runs:
        (tmp_path / f"notes {name}").mkdir()
    n_tokens = sum(DIGITS + n % 5 + 1 for n in range(PAIRS))
    updates = round(n_tokens / WINDOWS / TOKENS_PER_UPDATE) * WINDOWS  # of an epoch, when windows are alike
    until = f"trainer.max_steps={updates + 5}"

    for kill, rank in ((updates // 5, 1), (updates // 3, 0)):
        done = zygote.run([*argv(shards, runs["killed"]), until], Kill("after update", kill), 2, on=rank,
                          notes=tmp_path / "notes killed", deadline_s=1200)
        assert done.returncode == -9, done.stderr
    for name, run_dir in runs.items():
        check(zygote.run([*argv(shards, run_dir), until], ranks=2, notes=tmp_path / f"notes {name}", deadline_s=1200))
    assert weights(runs["killed"]) == weights(runs["uninterrupted"])

    for name, lives in ((name, notes(tmp_path / f"notes {name}")) for name in runs):
        assert len(lives) == (6 if name == "killed" else 2)
        trained: dict[int, list[list[list[int]]]] = {}
        for life in range(0, len(lives), 2):  # a later life trains again what was lost
            both: dict[int, list[list[list[int]]]] = {}
            for update, _, sources in lives[life] + lives[life + 1]:
                both.setdefault(update, []).append(sources)
            trained |= {update: found for update, found in both.items() if len(found) == 2}
        assert sorted(trained) == list(range(len(trained)))
        counts = Counter(tuple(ids[:DIGITS]) for found in trained.values() for sources in found for ids in sources)
        assert len(counts) == PAIRS
        assert set(counts.values()) == {1}

    window_mib = 4 * 2 * (n_tokens + 2 * PAIRS) / WINDOWS / 2**20  # tokens of both sides, and offsets
    slopes, grown = [], []
    for life in notes(tmp_path / "notes uninterrupted"):
        done_pairs = np.cumsum([len(sources) for _, _, sources in life]) * 2  # two ranks
        mib = np.array([kib for _, kib, _ in life]) / 1024
        later = done_pairs > PAIRS / 2 / WINDOWS  # the first window settles allocators and kernels
        slopes.append(np.polyfit(done_pairs[later] / 1e5, mib[later], 1)[0])
        grown.append(mib[later].max() - mib[later][0])
        print(f"memory: {mib[later][0]:.0f} MiB in the first window of {window_mib:.0f}, {mib[-1]:.0f} at the end; "
              f"{slopes[-1]:.2f} MiB more for 100,000 pairs")
    if FULL:
        assert max(grown) < window_mib, "more is held than a window"

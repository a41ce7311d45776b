"""Marian, from its Python wheel: C++ with AVX, and MKL with one thread a worker; followed through its log."""

import json
import re
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from benchmarks import work
from benchmarks.work import Job, Report

PACKAGES = ("pymarian==1.12.42",)
PRECISIONS = ("fp32",)
# Ep. 1 : Up. 20 : Sen. 5,045 : Cost 8.93 * 86,800 @ 4,340 after 86,800 : Time 3.01s : 1821.32 words/s
PROGRESS = re.compile(r"Up\. (?P<updates>[\d,]+) : .* after (?P<tokens>[\d,]+) : Time")


def train(job: Job, report: Report) -> None:
    """Train until killed."""
    vocab = job.here / "vocab.yml"
    pieces = ["</s>", "<unk>", *job.vocab[work.EOS + 1:]]
    vocab.write_text("".join(f"{json.dumps(piece)}: {i}\n" for i, piece in enumerate(pieces)), encoding="utf-8")
    settings = {
        "type": "transformer", "enc-depth": work.LAYERS, "dec-depth": work.LAYERS, "dim-emb": work.D_MODEL,
        "transformer-heads": work.HEADS, "transformer-dim-ffn": work.D_FF, "transformer-ffn-activation": "relu",
        "transformer-dropout": work.DROPOUT, "transformer-dropout-attention": work.DROPOUT,
        "transformer-dropout-ffn": work.DROPOUT, "label-smoothing": work.SMOOTHING, "learn-rate": work.LR,
        "lr-warmup": work.WARMUP, "lr-decay-inv-sqrt": work.WARMUP, "optimizer-params": (work.BETA1, work.BETA2, 1e-9),
        "mini-batch": 1000, "mini-batch-words": work.TOKENS, "maxi-batch": 100, "maxi-batch-sort": "trg",
        "max-length": 250, "cpu-threads": job.threads, "workspace": 1024, "disp-freq": 1, "seed": 1,
        "save-freq": work.FOREVER, "after-batches": work.FOREVER, "model": job.here / "model.npz",
        "tempdir": job.folder, "vocabs": (vocab, vocab),
        "train-sets": (job.piece_file("train", work.SRC), job.piece_file("train", work.TGT)),
    }
    command = [Path(sys.executable).with_name("pymarian"), "train", "--tied-embeddings-all", "--sync-sgd"]
    for name, value in settings.items():
        command += [f"--{name}", *(value if isinstance(value, tuple) else [value])]
    began = perf_counter()
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as marian:
        assert marian.stderr is not None
        try:
            for line in marian.stderr:
                print(line, end="", file=sys.stderr)
                if counted := progress(line):
                    report(seconds=perf_counter() - began, updates=counted[0], tokens=counted[1])
        except BrokenPipeError:  # nobody listens any more
            marian.kill()
    raise SystemExit(f"marian ended with code {marian.returncode}")


def progress(line: str) -> tuple[int, int] | None:
    """Return the updates and target labels so far from a line of its log; None = the line has none."""
    if match := PROGRESS.search(line):
        return int(match["updates"].replace(",", "")), int(match["tokens"].replace(",", ""))
    return None


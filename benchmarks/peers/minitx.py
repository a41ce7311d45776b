"""minitx: trained by its public command and followed through its metrics.jsonl; decoding by its own search."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

from benchmarks import work
from benchmarks.work import Job, Report, longest_first, read_lines, time_decoding

PRECISIONS = ("auto", "fp32")
DECODES_IN = ("bf16", "fp32")
ROOT = Path(__file__).parents[2]
NEVER = work.FOREVER


def train(job: Job, report: Report) -> None:
    """Train by command until killed or, where quality is measured, until its minutes are over.

    For speed, there is no validation and no checkpoint. For quality, the recipe is minitx's own for this text, and the
    whole validation set is translated every 25 updates; the clock of metrics.jsonl does not run meanwhile.
    """
    run = job.here / "run"
    goal = speed(job) if job.translate_every_s is None else [
        "trainer.valid_every_n_steps=25", "trainer.valid_sentences=1000", "trainer.max_steps=null"]
    command = [sys.executable, "train.py", *same_text(job), *goal, f"run_dir={run}", *job.options]
    sentences = len(read_lines(Path(job.text, f"train.{work.TGT}")))
    with subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr) as process:
        try:
            for record in follow(run / "metrics.jsonl", process):
                if line := progress(record, sentences):
                    report(**line)
        except BrokenPipeError:  # nobody listens any more
            process.kill()
    raise SystemExit(process.returncode)


def decode(job: Job, report: Report) -> None:
    """Time search over the peers' own pieces, with untrained weights: at a forced length they cost the same as trained
    ones. EOS is passed as the pad, which search never chooses, so no hypothesis ends early.
    """
    import torch

    from minitx.config.compose import compose
    from minitx.data.batch import collate_src
    from minitx.decoding.search import beam as beam_search
    from minitx.decoding.search import greedy
    from minitx.models.precision import computing_in
    from minitx.models.registry import build_model

    cfg = compose([*same_text(job), *speed(job), *job.options])
    model = build_model(cfg.model, src_vocab_size=work.VOCAB, tgt_vocab_size=work.VOCAB).eval()
    sources = job.ids(work.TEST, work.SRC)

    def search(chosen: Sequence[int], size: int, beam: int) -> list[int]:
        lengths: list[int] = []
        for rows in longest_first(sources, size, chosen):
            src = collate_src([sources[i] for i in rows], pad_id=work.PAD, eos_id=work.EOS)
            ends: Any = {"bos_id": work.BOS, "eos_id": work.EOS, "pad_id": work.EOS,
                         "max_lengths": torch.full((len(rows),), work.LENGTH)}
            with computing_in(torch.bfloat16 if job.precision == "bf16" else None):
                found = greedy(model, src, **ends) if beam == 1 else [
                    best.ids for best, *_ in beam_search(model, src, beam_size=beam, length_penalty=1.0, **ends)]
            lengths += map(len, found)
        return lengths

    time_decoding(job, report, len(sources), search)


def write_export(job: Job, to: str, quantization: str | None) -> Path:
    """Export an untrained run. --> the folder

    The output's weights for EOS are zeros, so that among thousands of tokens no search chooses it.
    """
    import torch

    from minitx.config.compose import compose
    from minitx.config.saved import freeze
    from minitx.data.tokenizer import TokenizerPair
    from minitx.export.writing import export_run
    from minitx.models.registry import build_model
    from minitx.runs.checkpoint import save_model

    run = job.here / "run"
    cfg = compose([*same_text(replace(job, precision="fp32")), *speed(job), *job.options])
    text = (read_lines(Path(job.text, f"train.{lang}")) for lang in (work.SRC, work.TGT))
    tokenizers = TokenizerPair.train([*zip(*text, strict=True)], work.VOCAB, joint=True)
    model = build_model(cfg.model, src_vocab_size=work.VOCAB, tgt_vocab_size=work.VOCAB)
    with torch.no_grad():
        model.output.weight[tokenizers.tgt.eos_id] = 0
    run.mkdir()
    freeze(cfg, run)
    tokenizers.save(run)
    save_model(run, model)
    export_run(run, to, job.here / to, quantization)
    return job.here / to


def same_text(job: Job) -> list[str]:
    """Return the arguments that all of its runs share."""
    precision = {"fp32": "32-true", "bf16": "bf16-mixed"}.get(job.precision, job.precision)
    return ["data=multi30k", f"data.src={work.SRC}", f"data.tgt={work.TGT}", f"data.dir={job.text}",
            f"tokenizer.vocab_size={work.VOCAB}", "model=transformer", f"trainer.precision={precision}",
            f"trainer.threads={job.threads}", "seed=1"]


def speed(job: Job) -> list[str]:
    """Return the arguments for the work that all systems share; widths, depth and heads are those of model.size=small.

    An update is one micro-batch, as it is for the other systems.
    """
    return ["model.size=small", f"model.dropout={work.DROPOUT}", f"optim.label_smoothing={work.SMOOTHING}",
            f"optim.beta1={work.BETA1}", f"optim.beta2={work.BETA2}", f"trainer.tokens_per_update={work.TOKENS}",
            f"data.max_tokens={work.TOKENS * 3 // 2}",
            f"trainer.max_steps={NEVER}", f"trainer.valid_every_n_steps={NEVER}", f"checkpoint.every_n_steps={NEVER}",
            "trainer.log_every_n_steps=1"]


def progress(record: dict[str, Any], sentences: int) -> dict[str, float] | None:
    """Turn a record of metrics.jsonl into a report; None = it has no progress. sentences: of the training text"""
    about = {"seconds": record["train_s"], "updates": record["step"]}
    if record["event"] == "valid":
        return about | {"bleu": record["bleu"]}
    if record["event"] != "train" or not record["epoch"]:
        return None
    tokens = record["tokens"]
    return about | {"tokens": tokens, "tokens_per_sentence": tokens / record["epoch"] / sentences}


def follow(path: Path, process: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
    """Yield the records of a growing file of JSON lines until the process that writes it ends."""
    partial = ""
    while True:
        ended = process.poll() is not None
        if path.exists():
            with path.open() as file:
                while True:
                    while piece := file.readline():
                        partial += piece
                        if partial.endswith("\n"):
                            yield json.loads(partial)
                            partial = ""
                    if ended:
                        return
                    sleep(0.1)
                    ended = process.poll() is not None
        if ended:
            return
        sleep(0.1)

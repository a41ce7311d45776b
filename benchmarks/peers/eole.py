"""eole, the successor of OpenNMT-py: its own command line, with a hook at each update."""

import json
import sys
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from benchmarks import work
from benchmarks.work import Job, Meter, Report, time_decoding

PACKAGES = ("eole==0.6.4", "aiohttp==3.14.5")  # the command does not start without aiohttp, which it does not require
PRECISIONS = ("bf16", "fp32")
DECODES_IN = ("bf16", "fp32")
POSITIONS = 5040  # its `batch_size`, of which 81 % are real target tokens


def train(job: Job, report: Report) -> None:
    """Train until killed."""
    from eole.trainer import Trainer

    meter, step = Meter(job, report), Trainer._train_step

    def counted(self: Any, batches: Any, normalization: Any, total: Any, *args: Any, **kwargs: Any) -> None:
        before = total.n_tokens
        step(self, batches, normalization, total, *args, **kwargs)
        meter.update(int(total.n_tokens - before))

    Trainer._train_step = counted
    _train(job, work.FOREVER)


def decode(job: Job, report: Report) -> None:
    """Time search with the weights of two updates: at a forced length any cost the same."""
    _train(job, 2)
    from eole.config.run import PredictConfig
    from eole.inference_engine import InferenceEnginePY

    (model,) = (path.parent for path in job.here.glob("model/step_*/config.json"))
    engine = InferenceEnginePY(PredictConfig(
        model_path=str(model), src="", gpu_ranks=[], compute_dtype=job.precision, min_length=work.LENGTH,
        max_length=work.LENGTH, max_length_ratio=0, batch_type="sents"))
    sources = job.pieces(work.TEST, work.SRC)

    def search(rows: Sequence[int], size: int, beam: int) -> list[int]:
        engine.config.batch_size, engine.config.beam_size = size, beam
        scores, _, hypotheses = engine.infer_list([sources[i] for i in rows])
        if any(isnan(score) for (score,) in scores):
            raise SystemExit("scores are NaN: nothing was measured")
        return [len(best[0].split()) for best in hypotheses]

    time_decoding(job, report, len(sources), search)


def _train(job: Job, updates: int) -> None:
    from eole.bin.main import main

    path = job.here / "eole.json"  # JSON is YAML
    path.write_text(json.dumps(_config(job, updates)))
    sys.argv = ["eole", "train", "--config", str(path)]
    main()


def _config(job: Job, updates: int) -> dict[str, Any]:
    vocab = str(Path(job.text, "joint.pieces"))
    text = {f"path_{side}": str(job.piece_file("train", lang)) for side, lang in (("src", work.SRC), ("tgt", work.TGT))}
    model = {
        "architecture": "transformer", "layers": work.LAYERS, "hidden_size": work.D_MODEL, "heads": work.HEADS,
        "transformer_ff": work.D_FF, "add_qkvbias": True, "add_ffnbias": True,
        "add_final_linear_bias": True,  # without it, checkpoints lack the encoder's biases, and noise is loaded
        "embeddings": {"word_vec_size": work.D_MODEL, "position_encoding_type": "SinusoidalInterleaved"},
        "share_embeddings": True, "share_decoder_embeddings": True,
    }
    training = {
        "world_size": 1, "gpu_ranks": [], "compute_dtype": job.precision, "use_amp": True,
        "batch_type": "tokens", "batch_size": POSITIONS, "normalization": "tokens", "bucket_size": 29_000,
        "num_workers": 0,  # its default of 2 processes would come on top of the threads that all systems have
        "optim": "adam", "adam_beta1": work.BETA1, "adam_beta2": work.BETA2, "learning_rate": work.LR,
        "decay_method": "rsqrt", "warmup_steps": work.WARMUP, "param_init_method": "xavier_uniform",
        "dropout": [work.DROPOUT], "attention_dropout": [work.DROPOUT], "label_smoothing": work.SMOOTHING,
        "log_attention_entropy": False,  # logging, on by default; not part of the work
        "train_steps": updates, "save_checkpoint_steps": updates, "valid_steps": work.FOREVER,
        "model_path": str(job.here / "model"),
    }
    return {"data": {"captions": text | {"transforms": []}}, "transforms": [], "share_vocab": True,
            "src_vocab": vocab, "tgt_vocab": vocab, "vocab_size_multiple": 1, "seed": 1, "report_every": 10,
            "model": model, "training": training}

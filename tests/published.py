"""Made-up runs, as `train.py` would leave them, for the ledger to publish."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from random import Random
from typing import Any

import yaml

from minitx.config.compose import compose
from minitx.config.schema import as_dict, config_sha256, resolve_size
from minitx.evaluation.metrics import SENTENCE_COLUMNS, score, sentence_statistics
from minitx.runs.result import Result

WORDS = ["Der", "Hund", "sieht", "eine", "Katze,", "und", "die", "Vögel", "singen."]
SPLIT = {"startup": 8.0, "data": 1.0, "forward": 40.0, "backward": 35.0, "optimizer": 9.0, "evaluation": 5.0,
         "checkpoint": 0.5, "other": 1.5}
ROLES = {"role_accuracy_pct": 75.0, "roles_swapped_pct": 20.0}
EMBEDDED = {"test": {"dictionary_bleu": 12.5}, "minimal_pairs": {"dictionary_bleu": 20.5, **ROLES}}


def write_run(run_dir: Path, composed: str = "synthetic_lstm", overrides: Sequence[str] = (), sentences: int = 40,
              test_sets: Sequence[str] | None = None, **changes: Any) -> Path:
    """Write what publishing reads, of an experiment. test_sets: None = its own; changes: of the result's fields"""
    run_dir.mkdir(parents=True)
    cfg = compose([f"experiment={composed}", *overrides])  # without run_dir: the same words are composed once
    cfg = replace(cfg, run_dir=str(run_dir), model=resolve_size(cfg.model))
    draw = Random(sentences)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(sentences)]
    hypotheses = [" ".join(word for word in line.split() if draw.random() < 0.9) for line in references]
    if test_sets is None:
        test_sets = {"hub": ("test_2016_flickr",), "files": ("test",)}.get(cfg.data.source, tuple(EMBEDDED))
    scores = asdict(score(hypotheses, references))
    known = {
        "status": "finished", "stop_reason": "max_steps", "experiment": cfg.choices.experiment,
        "model": cfg.choices.model, "data": cfg.choices.data, "src": cfg.data.src, "tgt": cfg.data.tgt,
        "seed": cfg.seed, "world_size": 1, "device": "cpu", "precision": "32-true", "threads": 2, "params": 1_234_567,
        "steps": 800, "epochs": 2.5, "tokens": 1_925_506, "nonfinite_steps": 0, "valid_loss": 1.25,
        "test": {name: scores | EMBEDDED.get(name, {}) for name in test_sets},
        "decode": {"beam_size": 5, "length_penalty": 1.0, "precision": None},
        "train_s": 185.2, "eval_s": 9.5, "checkpoint_s": 0.5, "wall_s": 200,
        "tgt_tokens_per_s": 10_396.9, "mfu_pct": 12.5, "padding_efficiency_pct": 97.5, "peak_memory_gib": 2.5,
        "git_dirty": False, "config_sha256": config_sha256(cfg), "data_sha256": "d" * 64, "tokenizer_sha256": "e" * 64,
        "cleaning": {"pairs": 50_000, "kept": 50_000, "dropped": {}, "overlap": {}},
        "versions": {"torch": "2.13.0", "lightning": "2.6.6"}, "hardware": {"cpu": "A Processor", "cores": 2},
        "environment": {}, "time_split": SPLIT, "not_measured": {},
    }  # fmt: skip
    result = Result(**{field.name: None for field in fields(Result)} | known | changes)
    (run_dir / "result.json").write_text(result.json(), encoding="utf-8")
    (run_dir / "config.yaml").write_text(yaml.safe_dump(as_dict(cfg)), encoding="utf-8")
    counts = sentence_statistics(hypotheses, references)
    words = [len(line.split()) for line in references]
    statistics = {"columns": SENTENCE_COLUMNS, "sets": dict.fromkeys(test_sets, counts),
                  "source_words": dict.fromkeys(test_sets, words)}
    (run_dir / "sentence_statistics.json").write_text(json.dumps(statistics))
    records = [{"event": "train", "step": 10, "loss": 3.0},
               {"event": "valid", "step": 100, "train_s": 9.5, "loss": 2.0, "bleu": 3.5, "samples": [["a", "b", "c"]]}]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run_dir

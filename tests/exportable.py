"""What the tests of exports share: a run whose every number matters, and what its own model says."""

from pathlib import Path
from random import Random

import torch
from served import write_run
from torch import Tensor

from minitx.data.batch import collate
from minitx.data.tokenizer import Tokenizer
from minitx.decoding.search import beam, greedy
from minitx.runs.checkpoint import load_model, save_model

TIED = ("model.tie_embeddings=true", "tokenizer.joint=true")
LENGTHS = (3, 7, 1, 9, 12)
MAX_LENGTH = 12


def write_drawn_run(folder: Path, *overrides: str) -> Path:
    """Write a run whose norms and biases are neither 1 nor 0, and some of whose outputs end by themselves.

    Where embeddings are tied its layers are made to outweigh them: it would only repeat the last token.
    """
    run_dir = write_run(folder, *overrides)
    model, _, cfg = load_model(run_dir)
    embeddings, layers = (0.6, 3.0) if cfg.model.tie_embeddings else (1.0, 1.0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.mul_(embeddings if "embed" in name or name == "output.weight" else layers)
            else:
                p.add_(0.05 * torch.randn_like(p))
        model.output.weight[Tokenizer.eos_id] *= 2.5
    save_model(run_dir, model)
    return run_dir


def random_ids(vocab_size: int, seed: int = 0) -> list[list[int]]:
    """Draw sentences of `LENGTHS`, without specials."""
    draw = Random(seed)
    return [[draw.randrange(3, vocab_size) for _ in range(length)] for length in LENGTHS]


def own_log_probs(run_dir: Path, sources: list[list[int]], targets: list[list[int]]) -> Tensor:
    """Return the log-probability of each target token and EOS, sentence by sentence. --> [tokens]"""
    model, *_ = load_model(run_dir)
    found = []
    for source, target in zip(sources, targets, strict=True):
        batch = collate([source], [target], pad_id=0, bos_id=1, eos_id=2)
        with torch.no_grad():
            log_probs = model.project(model(batch.src, batch.tgt)[:batch.n_tokens]).log_softmax(-1)
        found.append(log_probs.gather(1, batch.labels[:batch.n_tokens, None])[:, 0])
    return torch.cat(found)


def own_greedy(run_dir: Path, sources: list[list[int]]) -> list[list[int]]:
    """Return the run's own outputs, of at most `MAX_LENGTH` tokens, EOS counted."""
    model, *_ = load_model(run_dir)
    return [greedy(model, collate([source], [[]], pad_id=0, bos_id=1, eos_id=2).src, bos_id=1, eos_id=2, pad_id=0,
                   max_lengths=torch.tensor([MAX_LENGTH]))[0] for source in sources]


def own_beam(run_dir: Path, sources: list[list[int]]) -> list[list[int]]:
    """Return the likeliest outputs of a beam of 5."""
    model, *_ = load_model(run_dir)
    return [beam(model, collate([source], [[]], pad_id=0, bos_id=1, eos_id=2).src, bos_id=1, eos_id=2, pad_id=0,
                 max_lengths=torch.tensor([MAX_LENGTH]), beam_size=5, length_penalty=0)[0][0].ids
            for source in sources]

"""A tiny model learns to copy and to reverse digits; without positions it learns neither."""

from collections.abc import Callable
from random import Random

import pytest
import torch
from toys import SPECIALS, tiny_transformer

from minitx.batch import collate, collate_src
from minitx.decoding.search import greedy
from minitx.training.loss import cross_entropy

Task = Callable[[list[int]], list[int]]
TASKS: dict[str, Task] = {"copy": lambda ids: ids, "reverse": lambda ids: ids[::-1]}
DIGITS = range(3, 11)  # 8 digits, after the specials


def draw(rng: Random, rows: int) -> list[list[int]]:
    return [[rng.choice(DIGITS) for _ in range(rng.randint(4, 8))] for _ in range(rows)]


def exact_match_pct(pos_encoding: str, task: Task, *, steps: int) -> float:
    """Train on fresh sequences, then decode 500 others greedily."""
    torch.set_num_threads(1)
    model = tiny_transformer(seed=1, d_model=64, d_ff=128, n_heads=4, pos_encoding=pos_encoding).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), fused=True)
    rng, rows = Random(1), 128
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (step + 1) / 50, (steps - step) / (0.4 * steps))
        src = draw(rng, rows)
        batch = collate(src, [task(ids) for ids in src], **SPECIALS)
        logits = model(batch.src, batch.src_mask, batch.tgt_in, batch.tgt_mask)
        (cross_entropy(logits, batch.tgt_out[batch.tgt_mask])[0] / batch.n_tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    unseen = draw(Random(2), 500)
    src_ids, mask = collate_src(unseen, pad_id=SPECIALS["pad_id"], eos_id=SPECIALS["eos_id"])
    outputs = greedy(model.eval(), src_ids, mask, max_lengths=torch.full((500,), 12), **SPECIALS)
    return 100 * sum(out == task(ids) for out, ids in zip(outputs, unseen, strict=True)) / 500


@pytest.mark.parametrize("task", TASKS)
def test_transformer_learns(task: str) -> None:
    assert exact_match_pct("sinusoidal", TASKS[task], steps=300) >= 99


def test_without_positions_it_cannot_copy() -> None:
    """The encoder sees a bag of digits: the best it can do is to write them in some order."""
    assert exact_match_pct("none", TASKS["copy"], steps=300) < 20

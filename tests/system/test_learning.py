"""A tiny model of each family learns to copy and to reverse digits; a Transformer without positions cannot copy."""

from collections.abc import Callable
from functools import partial
from random import Random

import pytest
import torch
from decoding.test_translator import DECODE
from toys import SPECIALS, tiny_gnmt, tiny_linear_rnn, tiny_lstm, tiny_transformer

from minitx.data.batch import collate, collate_src
from minitx.decoding.alignment import align
from minitx.decoding.search import greedy
from minitx.decoding.torch_backend import TorchBackend
from minitx.decoding.translator import Translator
from minitx.models.base import Seq2Seq
from minitx.models.registry import MODELS, model_class
from minitx.training.loss import linear_cross_entropy

Task = Callable[[list[int]], list[int]]
TASKS: dict[str, Task] = {"copy": lambda ids: ids, "reverse": lambda ids: ids[::-1]}
DIGITS = range(3, 11)  # 8 digits, after the specials
transformer = partial(tiny_transformer, seed=1, d_model=64, d_ff=128, n_heads=4)
linear_rnn = partial(tiny_linear_rnn, seed=1, d_model=64, d_hidden=80, d_ff=128, n_heads=4)
lstm = partial(tiny_lstm, seed=1, d_model=64, d_hidden=128, num_layers=1)
LEARNERS: dict[str, tuple[Callable[[], Seq2Seq], int, float, int]] = {  # model, updates, peak learning rate, % exact
    "transformer": (transformer, 300, 3e-3, 99),
    "transformer window": (partial(transformer, window=2), 300, 3e-3, 99),
    "lstm": (partial(lstm, d_hidden=192), 600, 5e-3, 97),  # one state holds the source: a digit is lost now and then
    "lstm additive": (partial(lstm, attention="additive"), 200, 1e-2, 99),
    "lstm dot": (partial(lstm, attention="dot"), 200, 1e-2, 99),
    "gnmt": (partial(tiny_gnmt, seed=1, d_model=96), 300, 5e-3, 99),
    "linear_rnn": (partial(linear_rnn, d_hidden=192), 600, 5e-3, 97),
    "linear_rnn attention": (partial(linear_rnn, attention="dot"), 300, 5e-3, 99),
}
CANNOT: dict[str, str] = {}  # families that lack what these tasks need, and what that is
QUICK = (("transformer", "reverse"), ("lstm dot", "reverse"))


def draw(rng: Random, rows: int) -> list[list[int]]:
    return [[rng.choice(DIGITS) for _ in range(rng.randint(4, 8))] for _ in range(rows)]


def learned(make: Callable[[], Seq2Seq], task: Task, *, steps: int, lr: float) -> Seq2Seq:
    """Train on fresh sequences."""
    torch.set_num_threads(1)
    model = make().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), fused=True)
    rng, rows = Random(1), 128
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 50, (steps - step) / (0.4 * steps))
        src = draw(rng, rows)
        batch = collate(src, [task(ids) for ids in src], **SPECIALS)
        loss_sum, _ = linear_cross_entropy(model(batch.src, batch.tgt), model.output.weight, batch.labels)
        (loss_sum / batch.n_tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def exact_match_pct(model: Seq2Seq, task: Task) -> float:
    """Decode 500 sequences, others than those of the training, greedily."""
    unseen = draw(Random(2), 500)
    src = collate_src(unseen, pad_id=SPECIALS["pad_id"], eos_id=SPECIALS["eos_id"])
    outputs = greedy(model, src, max_lengths=torch.full((500,), 12), **SPECIALS)
    return 100 * sum(out == task(ids) for out, ids in zip(outputs, unseen, strict=True)) / 500


class Digits:
    """Words of one digit, a token each."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[3 + int(word) for word in text.split()] for text in texts]

    def pieces(self, ids: list[int]) -> list[str]:
        return [f" {id_ - 3}" for id_ in ids]


def aligned_pct(model: Seq2Seq, task: Task) -> float:
    """Align sequences of different digits with what becomes of them. --> share of the digits that find themselves"""
    class Pair:
        src = tgt = Digits()

    rng = Random(3)
    sources = [rng.sample(range(8), 6) for _ in range(50)]
    translator = Translator(TorchBackend([model]), Pair(), DECODE)  # type: ignore[arg-type]
    targets = [task(digits) for digits in sources]
    links = align(translator, *([" ".join(map(str, digits)) for digits in side] for side in (sources, targets)))
    right = [src[a] == tgt[b] for src, tgt, found in zip(sources, targets, links, strict=True) for a, b in found]
    return 100 * sum(right) / (50 * 6)


@pytest.mark.parametrize(("name", "task"), [
    pytest.param(name, task, marks=[] if (name, task) in QUICK else pytest.mark.slow)
    for name in LEARNERS for task in TASKS])
def test_it_learns(name: str, task: str) -> None:
    make, steps, lr, exact = LEARNERS[name]
    model = learned(make, TASKS[task], steps=steps, lr=lr)
    assert exact_match_pct(model, TASKS[task]) >= exact
    if name.startswith("lstm dot"):  # with one layer, which must look where the digit is
        assert aligned_pct(model, TASKS[task]) >= 95


def test_every_family_is_among_the_learners() -> None:
    learn = {type(make()) for make, *_ in LEARNERS.values()}
    assert learn == {model_class(family) for family in MODELS.keys() - CANNOT.keys()}


@pytest.mark.slow
def test_without_positions_it_cannot_copy() -> None:
    """The encoder sees a bag of digits: the best it can do is to output them in some order."""
    model = learned(partial(transformer, pos_encoding="none"), TASKS["copy"], steps=300, lr=3e-3)
    assert exact_match_pct(model, TASKS["copy"]) < 20

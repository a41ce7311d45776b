"""The kernels of an update, against the model's own count of operations and against its shapes."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from families import FAMILIES, composed

from minitx.config.schema import Config
from minitx.experiments.prediction.update import record_update, vocabulary
from minitx.models.registry import build_model
from minitx.profiling.kernels import KINDS, Kernel
from minitx.utils.errors import UserError

V100, A100, H100 = (7, 0), (8, 0), (9, 0)
SENTENCES, SRC, TGT = 64, 32, 24  # nothing is padded
ONE = "data.max_tokens=8192"  # micro-batch


@cache
def config(family: str, *words: str) -> Config:
    return composed(*FAMILIES[family], "model.size=tiny", "model.dropout=0.1", "optim.ema_decay=0.99", *words)


@cache
def record(family: str, *words: str, precision: str = "bf16-mixed", capability: tuple[int, int] = H100,
           sentences: int = SENTENCES, src: int = SRC, tgt: int = TGT) -> list[Kernel]:
    return record_update(config(family, *words), sentences, src, tgt, precision=precision, capability=capability)


def counted(cfg: Config, src: int, tgt: int) -> tuple[float, float]:
    """What the model counts for an update: what grows with the tokens, and what grows with their square."""
    with torch.device("meta"):
        model = build_model(cfg.model, src_vocab_size=vocabulary(cfg), tgt_vocab_size=vocabulary(cfg))
    once, twice, thrice = (3 * (model.flops(np.full(SENTENCES, n * src), np.full(SENTENCES, n * tgt)) or 0.0)
                           for n in (1, 2, 3))
    square = (thrice - 2 * twice + once) / 2
    return once - square, square


@pytest.mark.parametrize("capability", [H100, V100])
@pytest.mark.parametrize("family", [
    pytest.param(family, marks=[] if family in ("transformer", "lstm dot") else pytest.mark.slow)
    for family in FAMILIES])
def test_operations_are_those_that_the_model_counts(family: str, capability: tuple[int, int]) -> None:
    kernels = record(family, ONE, capability=capability)
    whole = (ONE, "model.window=null") if "window" in family else (ONE,)
    by_token, by_pair = counted(config(family, *whole), SRC, TGT)
    if capability == H100:  # a V100 hides what a window does not reach, and computes it
        by_pair = sum(counted(config(family, ONE), SRC, TGT)) - by_token
    found = Counter[str]()
    for kernel in kernels:
        found[kernel.kind] += kernel.flop
    one_kernel = found["attention"] > 0
    assert found["product"] == pytest.approx(by_token + by_pair * (not one_kernel), rel=0.04), "filler is computed, too"
    if one_kernel:  # which makes the scores again backwards: 7 products, not 6; filler attends to itself
        assert found["attention"] == pytest.approx(7 / 6 * by_pair, rel=0.07)
    assert sum(found.values()) == pytest.approx(by_token + by_pair, rel=0.05)


@pytest.mark.parametrize("family", ["transformer", "lstm"])
def test_every_micro_batch_is_there(family: str) -> None:
    whole, parts = record(family, ONE), record(family, "data.max_tokens=512")
    losses = [sum(kernel.name == "aten.softmax" for kernel in kernels) for kernels in (whole, parts)]
    assert losses == [1, 4]
    assert [sum(kernel.host_waits for kernel in kernels) for kernels in (whole, parts)] == [1, 1]
    optimizer = [[kernel for kernel in kernels if kernel.phase == "optimizer"] for kernels in (whole, parts)]
    assert optimizer[0] == optimizer[1]
    assert sum(k.flop for k in parts) == pytest.approx(sum(k.flop for k in whole), rel=0.05)


def dependent(kernels: list[Kernel]) -> int:
    """Steps of recurrences, each of which waits for the one before."""
    return sum(kernel.steps for kernel in kernels if kernel.name in ("cudnn.lstm.state", "cudnn.lstm.persistent"))


def test_a_recurrence_takes_more_steps_for_longer_sentences_and_attention_does_not() -> None:
    short, long = (record("lstm dot", ONE, src=n, tgt=n) for n in (8, 16))
    layers = 2 * 3  # one forwards, one backwards and a decoder's
    assert (dependent(short), dependent(long)) == (2 * layers * 8, 2 * layers * 16)
    short, long = (record("transformer", ONE, src=n, tgt=n) for n in (8, 16))
    assert [kernel.name for kernel in short] == [kernel.name for kernel in long]


def test_input_feeding_is_recorded_step_by_step() -> None:
    short, long = (record("lstm dot fed", ONE, src=4, tgt=n) for n in (4, 8))
    calls = [sum(k.name == "cudnn.lstm.inputs" for k in kernels) for kernels in (short, long)]
    assert calls[1] - calls[0] == 2 * (8 - 4), "one a layer and step"


@pytest.mark.parametrize("capability", [V100, A100, H100])
def test_padding_is_attended_to_before_ampere_alone(capability: tuple[int, int]) -> None:
    kernels = record("transformer", ONE, capability=capability)
    packed = {kernel.name for kernel in kernels if kernel.kind == "attention"}
    assert all(name.startswith("torch_attn") == (capability >= A100) for name in packed)
    assert {kernel.dtype for kernel in kernels if kernel.name == "aten.addmm"} == {"half"}


def test_each_sentence_may_have_its_own_length() -> None:
    rng = np.random.default_rng(1)
    src, tgt = (rng.integers(2, 40, SENTENCES) for _ in range(2))
    kernels = record_update(config("transformer", ONE), SENTENCES, src.tolist(), tgt.tolist(), precision="bf16-mixed",
                            capability=H100)
    equal = record("transformer", ONE)
    assert [kernel.name for kernel in kernels] == [kernel.name for kernel in equal]
    heads = 4 * 32
    scores = float(2 * (src @ src + tgt @ tgt + tgt @ src))
    attention = sum(kernel.flop for kernel in kernels if kernel.kind == "attention")
    assert attention == pytest.approx(7 * 2 * heads * scores, rel=0.02), "and the filler attends to itself"


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_products_are_in_the_format_that_was_asked_for(precision: str) -> None:
    formats = {kernel.dtype for kernel in record("transformer", ONE, precision=precision) if kernel.name == "aten.mm"}
    assert formats == {"float" if precision == "32-true" else "half"}


def test_kernels_are_sound() -> None:
    for kernel in record("lstm dot", ONE) + record("transformer", ONE, "optim=muon", capability=V100):
        assert kernel.kind in (*KINDS, "view")
        assert (kernel.launches > 0) == (kernel.kind != "view")
        assert (kernel.flop > 0) == (kernel.kind in ("product", "attention")) == (kernel.product is not None)
        assert (kernel.nbytes > 0) == (kernel.kind != "view")


def test_large_models_are_not_allocated() -> None:
    cfg = composed("model=transformer", "model.size=big", "tokenizer.vocab_size=32000", "data.max_tokens=4096")
    kernels = record_update(cfg, 128, 30, 30, precision="bf16-mixed", capability=H100)
    adamw = sum(kernel.nbytes for kernel in kernels if kernel.name == "aten._fused_adamw_")
    assert adamw > 7 * 4 * 200e6, "of fp32, for each of its weights"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_layers_that_are_computed_again_are_so_once(precision: str) -> None:
    """All products of the forward pass but the logits', and all that is dropped but embeddings, a second time."""
    cfg = config("transformer")
    plain, again = (Counter((kernel.phase, kernel.name.removeprefix("aten.")) for kernel in record_update(
        each, 2, 16, 16, precision=precision, capability=(9, 0))) for each in (
            cfg, replace(cfg, trainer=replace(cfg.trainer, activation_checkpointing=True))))
    for name, outside in {"mm": 3, "addmm": 0, "native_dropout": 2, "native_layer_norm": 2, "relu_": 0}.items():
        assert plain["forward", name] > outside
        assert again["backward", name] - plain["backward", name] == plain["forward", name] - outside, name
        assert again["forward", name] == plain["forward", name], name


def test_a_family_with_nothing_to_compute_again_is_refused() -> None:
    cfg = config("lstm")
    with pytest.raises(UserError, match=r"^trainer.activation_checkpointing=true: the family lstm has nothing to "):
        record_update(replace(cfg, trainer=replace(cfg.trainer, activation_checkpointing=True)), 2, 16, 16,
                      precision="32-true", capability=(9, 0))

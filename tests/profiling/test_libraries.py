"""cuDNN's LSTM and attention in one kernel: which of them a GPU takes, and what they launch."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minitx.profiling.kernels import Kernel
from minitx.profiling.libraries import LSTMShape, attention_backend, cudnn_lstm_algorithm, cudnn_lstm_kernels

V100, T4, A100, A40, H100 = (7, 0), (7, 5), (8, 0), (8, 6), (9, 0)
HALF, BF16, FLOAT = torch.float16, torch.bfloat16, torch.float32
GNMT = LSTMShape(sentences=128, steps=50, d_in=1024, d_hidden=1024, dtype=HALF)
SHAPES = st.builds(LSTMShape, *[st.integers(1, 300)] * 4, dtype=st.sampled_from([HALF, FLOAT]))


@pytest.mark.parametrize(("changes", "capability", "persistent"), [
    ({}, A100, True), ({}, H100, True), ({}, V100, True), ({}, T4, False), ({}, A40, False),
    ({"dtype": BF16}, A100, False), ({"dtype": FLOAT}, A100, False), ({"sentences": 136}, A100, False),
    ({"sentences": 100}, A100, False), ({"d_hidden": 1000}, A100, False), ({"d_hidden": 1152}, A100, False),
    ({"d_in": 1000}, A100, False), ({"steps": 30}, V100, False), ({"steps": 30, "sentences": 96}, V100, True),
    ({"sentences": 112}, V100, False), ({"d_hidden": 128, "dtype": FLOAT}, T4, True),
    ({"d_hidden": 128, "dtype": torch.float64}, H100, False)])
def test_the_weights_stay_on_chip_where_torch_asks_for_it(changes: dict[str, object], capability: tuple[int, int],
                                                         persistent: bool) -> None:
    shape = replace(GNMT, **changes)
    assert cudnn_lstm_algorithm(shape, "forward", capability) == ("persistent" if persistent else "standard")
    assert cudnn_lstm_algorithm(shape, "forward", capability, packed=True) == "standard"


def test_a_small_state_stays_on_chip_less_often_backwards() -> None:
    shape = replace(GNMT, d_hidden=160, dtype=FLOAT)
    assert [cudnn_lstm_algorithm(shape, phase, H100) for phase in ("forward", "backward")] == ["persistent", "standard"]


def work(shape: LSTMShape, phase: str, algorithm: str) -> tuple[list[Kernel], float]:
    kernels = cudnn_lstm_kernels(shape, phase, algorithm)
    return kernels, sum(kernel.flop for kernel in kernels)


@given(SHAPES)
def test_both_algorithms_do_the_same_work_and_backwards_is_twice_forwards(shape: LSTMShape) -> None:
    weights = 4 * shape.d_hidden * (shape.d_in + shape.d_hidden)
    forward = 2.0 * shape.sentences * shape.steps * weights
    for algorithm in ("standard", "persistent"):
        assert work(shape, "forward", algorithm)[1] == pytest.approx(forward)
        assert work(shape, "backward", algorithm)[1] == pytest.approx(2 * forward)


@given(SHAPES)
def test_each_step_reads_the_weights_unless_they_stay_on_chip(shape: LSTMShape) -> None:
    matrix = shape.dtype.itemsize * 4 * shape.d_hidden**2
    for phase in ("forward", "backward"):
        standard, persistent = (work(shape, phase, algorithm)[0] for algorithm in ("standard", "persistent"))
        saved = sum(kernel.nbytes for kernel in standard) - sum(kernel.nbytes for kernel in persistent)
        assert saved == (shape.steps - 1) * matrix
        assert max(kernel.steps for kernel in persistent) == shape.steps
        assert len(standard) - len(persistent) == 2 * shape.steps - 1


def test_the_host_enters_the_library_once() -> None:
    for phase in ("forward", "backward"):
        launched = [kernel.launched_by for kernel in cudnn_lstm_kernels(GNMT, phase, "standard")]
        assert launched == ["operator"] + ["library"] * (len(launched) - 1)


@pytest.mark.parametrize(("dtype", "width", "mask", "capability", "backend"), [
    (HALF, 64, False, V100, "efficient"), (HALF, 64, True, V100, "efficient"), (FLOAT, 64, True, V100, "efficient"),
    (FLOAT, 30, True, V100, "efficient"), (HALF, 36, True, V100, "math"), (BF16, 64, True, V100, "math"),
    (HALF, 64, False, T4, "efficient"), (BF16, 64, False, A100, "flash"), (BF16, 36, False, A100, "flash"),
    (BF16, 64, True, A100, "efficient"), (BF16, 36, True, A100, "math"), (FLOAT, 64, False, A100, "efficient"),
    (FLOAT, 30, False, A100, "math"), (BF16, 64, True, H100, "cudnn"), (BF16, 416, True, H100, "efficient"),
    (FLOAT, 64, True, H100, "efficient")])
def test_attention_goes_to_the_kernel_that_torch_would_choose(dtype: torch.dtype, width: int, mask: bool,
                                                             capability: tuple[int, int], backend: str) -> None:
    q, k = (torch.empty(2, 4, length, width, dtype=dtype, device="meta") for length in (5, 6))
    bias = torch.empty(2, 1, 1, 6, dtype=dtype, device="meta") if mask else None
    assert attention_backend(q, k, bias, capability) == backend

"""Kernels recorded on a device that is not there, against what torch really runs on the CPU."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from minitx.profiling.fake_cuda import CUDA, backward, fake_gpu
from minitx.profiling.kernels import Kernel
from minitx.profiling.operators import name_of
from minitx.profiling.recorder import recording

H100 = (9, 0)


class Names(TorchDispatchMode):
    """The operators that torch runs, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(f"{func.namespace}.{name_of(func)}")
        return func(*args, **(kwargs or {}))


class Net(nn.Module):
    """A weight used twice, a gradient from two sides, a cast and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.wide, self.narrow = nn.Embedding(50, 16), nn.Linear(16, 64), nn.Linear(64, 16, bias=False)
        self.norm = nn.LayerNorm(16)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids).flatten(0, 1)
        for _ in range(2):
            x = x + self.narrow(torch.relu(self.wide(self.norm(x))))
        return F.log_softmax(x.double() @ self.table.weight.double().t(), -1)[:, 3].tanh().sum()


def test_operators_are_those_of_the_cpu_in_its_order() -> None:
    net, ids = Net(), torch.zeros(3, 5, dtype=torch.int64)
    net(ids).backward()  # so that there are gradients to add to
    with Names() as real:
        net(ids).backward()
    with torch.device("meta"):
        net = Net()
    with fake_gpu() as counter:
        net.to_empty(device=CUDA)
        ids = ids.to(CUDA, non_blocking=True)
        with recording(counter, H100) as recorder:
            backward(net(ids))
            recorder.kernels.clear()
            backward(net(ids))
    assert [kernel.name for kernel in recorder.kernels] == real.names
    assert len(real.names) > 60


def record(run: Any, capability: tuple[int, int] = H100) -> list[Kernel]:
    with fake_gpu(capability=capability) as counter, recording(counter, capability) as recorder:
        run()
    return recorder.kernels


def test_a_list_is_read_by_one_copy_that_the_host_waits_for() -> None:
    kernels = record(lambda: torch.ones(3, device=CUDA).mul(2).tolist())
    assert [(k.name, k.host_waits) for k in kernels if k.kind != "view"] == [
        ("aten.ones", False), ("aten.mul", False), ("aten._local_scalar_dense", True)]


def test_what_runs_on_the_cpu_is_not_recorded() -> None:
    assert not record(lambda: torch.ones(3).mul(2).tolist())


@pytest.mark.parametrize("causal", [False, True])
def test_attention_over_packed_sentences_counts_each_with_its_own_length(causal: bool) -> None:
    from torch.nn.attention.varlen import varlen_attn

    def run() -> None:
        q, k, v = (torch.empty(12, 4, 16, device=CUDA, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        q_starts, k_starts = (torch.tensor(starts, dtype=torch.int32).to(CUDA, non_blocking=True)
                              for starts in ([0, 7, 9, 12], [0, 2, 8, 12]))
        out = varlen_attn(q, k, v, q_starts, k_starts, 7, 6, window_size=(-1, 0 if causal else -1))
        assert isinstance(out, Tensor)
        backward(out.sum())

    forward, back = (kernel for kernel in record(run) if kernel.kind == "attention")
    scores = 7 * 2 + 2 * 6 + 3 * 4
    assert (forward.flop, back.flop) == (2 * 2 * 4 * 16 * scores, 5 * 2 * 4 * 16 * scores)
    assert forward.product == back.product == (4, 7, 6, 16)
    assert forward.nbytes > 4 * 12 * 64 * 2


def test_attention_in_a_window_counts_what_lies_in_it() -> None:
    """As a whole square, where the window is wider."""
    from torch.nn.attention.varlen import varlen_attn

    def run() -> None:
        q = torch.empty(12, 4, 16, device=CUDA, dtype=torch.bfloat16, requires_grad=True)
        starts = torch.tensor([0, 7, 9, 12], dtype=torch.int32).to(CUDA, non_blocking=True)
        for window in ((2, 2), (4, 0)):
            out = varlen_attn(q, q, q, starts, starts, 7, 7, window_size=window)
            assert isinstance(out, Tensor)
            backward(out.sum())

    kernels = [kernel for kernel in record(run) if kernel.kind == "attention"]
    scores = 7 * 5 + 2 * 2 + 3 * 3
    assert [kernel.flop for kernel in kernels] == 2 * [2 * 2 * 4 * 16 * scores, 5 * 2 * 4 * 16 * scores]
    assert {kernel.product for kernel in kernels} == {(8, 7, 5, 16)}


def lstm(dtype: torch.dtype, autocast: bool) -> list[Kernel]:
    """The kernels of an LSTM over 8 steps."""
    def run() -> None:
        layer = nn.LSTM(256, 256, batch_first=True, device=CUDA)
        x = torch.empty(16, 8, 256, device=CUDA, dtype=dtype, requires_grad=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            y, (h, c) = layer(x)
        assert (y.shape, h.shape, c.shape) == ((16, 8, 256), (1, 16, 256), (1, 16, 256))
        backward(y.sum() + h.sum())
        assert x.grad is not None
        assert layer.weight_hh_l0.grad is not None
        assert (x.grad.shape, layer.weight_hh_l0.grad.dtype) == (x.shape, torch.float32)

    return [kernel for kernel in record(run) if kernel.kind != "view"]


def test_an_lstm_is_a_call_of_cudnn() -> None:
    kernels = lstm(torch.float32, autocast=False)
    forward, back = ([k for k in kernels if k.name.startswith("cudnn") and k.phase == phase]
                     for phase in ("forward", "backward"))
    assert [kernel.name.rpartition(".")[2] for kernel in forward] == ["inputs", *["state", "gates"] * 8]
    assert [kernel.name.rpartition(".")[2] for kernel in back] == [
        *["gates", "state"] * 8, "d_inputs", "d_weight_ih", "d_weight_hh", "d_biases"]
    assert {kernel.dtype for kernel in forward + back} == {"float"}
    assert sum(kernel.name == "aten.clone" for kernel in kernels) == 4, "x three times, and its result's gradient"


def test_autocast_has_cudnn_compute_in_fp16() -> None:
    kernels = lstm(torch.bfloat16, autocast=True)
    on_chip = [kernel for kernel in kernels if kernel.name == "cudnn.lstm.persistent"]
    assert [(kernel.phase, kernel.dtype, kernel.steps) for kernel in on_chip] == [
        ("forward", "half", 8), ("backward", "half", 8)]
    assert sum(kernel.name == "aten.copy_" for kernel in kernels) == 4, "each weight is cast"


def test_what_no_model_asks_of_an_lstm_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="layers"):
        record(lambda: nn.LSTM(8, 8, num_layers=2, batch_first=True, device=CUDA)(torch.empty(3, 2, 8, device=CUDA)))


@pytest.mark.parametrize(("dtype", "width", "masked", "capability", "name"), [
    (torch.bfloat16, 64, False, (8, 0), "flash"), (torch.bfloat16, 36, False, (8, 0), "flash"),
    (torch.bfloat16, 64, True, (8, 0), "efficient"), (torch.bfloat16, 64, True, H100, "cudnn"),
    (torch.float16, 64, True, (7, 0), "efficient"), (torch.float32, 64, False, (7, 0), "efficient")])
def test_attention_is_one_kernel_each_way(dtype: torch.dtype, width: int, masked: bool, capability: tuple[int, int],
                                          name: str) -> None:
    def run() -> None:
        q, k, v = (torch.empty(2, 4, length, width, device=CUDA, dtype=dtype, requires_grad=True)
                   for length in (5, 6, 6))
        bias = torch.zeros(2, 1, 1, 6, device=CUDA, dtype=dtype) if masked else None
        out = F.scaled_dot_product_attention(q, k, v, bias)
        assert out.shape == q.shape
        backward(out.sum())
        assert q.grad is not None
        assert q.grad.shape == q.shape

    found = [kernel for kernel in record(run, capability) if kernel.kind in ("attention", "product")]
    assert [kernel.name for kernel in found] == [f"aten._scaled_dot_product_{name}_attention{way}"
                                                 for way in ("", "_backward")]


def test_attention_without_such_a_kernel_is_taken_apart() -> None:
    def run() -> None:
        q = torch.empty(2, 4, 5, 30, device=CUDA, requires_grad=True)
        backward(F.scaled_dot_product_attention(q, q, q, is_causal=True).sum())

    kernels = record(run)
    assert sum(kernel.flop for kernel in kernels) == 3 * 2 * 2 * 8 * 5 * 5 * 30
    assert {kernel.name for kernel in kernels if kernel.product} == {"aten.bmm"}

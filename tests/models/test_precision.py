"""The number format of activations: a block's own, and its thread's."""

import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from minitx.models.layers import Linear
from minitx.models.precision import (
    Casts,
    at_least_fp32,
    cast_weight,
    compute_dtype,
    computing_in,
    join_weights,
    to_compute_dtype,
)


def test_a_block_has_its_own_format_and_the_one_before_comes_back_even_after_an_error() -> None:
    x = torch.ones(2)
    assert compute_dtype() is None
    assert to_compute_dtype(x) is x
    with computing_in(torch.bfloat16):
        assert to_compute_dtype(x).dtype is torch.bfloat16
        with computing_in(None):
            assert to_compute_dtype(x) is x
        with pytest.raises(ZeroDivisionError), computing_in(None):
            raise ZeroDivisionError
        assert compute_dtype() is torch.bfloat16
    assert compute_dtype() is None


def test_a_thread_does_not_see_the_block_of_another() -> None:
    weight = nn.Parameter(torch.ones(2))
    with ThreadPoolExecutor(1) as pool, computing_in(torch.bfloat16):
        assert pool.submit(compute_dtype).result() is None
        assert cast_weight(weight, torch.bfloat16) is cast_weight(weight, torch.bfloat16)
        assert pool.submit(cast_weight, weight, torch.bfloat16).result() is not cast_weight(weight, torch.bfloat16)


@pytest.mark.parametrize("inference", [True, False])
def test_weights_that_changed_are_cast_anew(inference: bool) -> None:
    layer, x = Linear(4, 3, bias=False), torch.ones(2, 4).bfloat16()
    with torch.inference_mode(inference), computing_in(torch.bfloat16):
        assert layer(x).any()
    with torch.no_grad():
        layer.weight.zero_()
    with torch.inference_mode(inference):
        assert not layer(x).any()
        with computing_in(torch.bfloat16):
            assert not layer(x).any()


def test_a_cast_is_made_once_a_block_and_type() -> None:
    weight = nn.Parameter(torch.ones(2))
    with computing_in(None):
        cast = cast_weight(weight, torch.bfloat16)
        assert cast_weight(weight, torch.bfloat16) is cast
        assert cast_weight(weight, torch.float32) is weight
        assert cast_weight(weight, torch.float64).dtype is torch.float64
        with computing_in(None):
            assert cast_weight(weight, torch.bfloat16) is not cast
    assert cast_weight(weight, torch.bfloat16) is not cast


def test_casts_are_kept_from_block_to_block_as_long_as_the_weight_is_what_it_was() -> None:
    weight, other = (nn.Parameter(torch.ones(2, 2), requires_grad=False) for _ in range(2))
    casts = Casts()

    def cast() -> torch.Tensor:
        with torch.inference_mode(), computing_in(torch.bfloat16, casts):
            return cast_weight(weight, torch.bfloat16)

    first = cast()
    assert cast() is first
    with torch.no_grad():
        weight.add_(1)
    second = cast()
    assert second[0, 0] == 2
    weight.data = torch.full((2, 2), 3.0)
    assert cast()[0, 0] == 3
    with computing_in(None, casts):
        joined = join_weights(weight, other)
        assert join_weights(weight, other) is joined
    with torch.no_grad():
        other.zero_()
    with computing_in(None, casts):
        assert join_weights(weight, other).tolist() == [[3, 3, 0, 0]] * 2


def test_casts_of_a_weight_that_is_gone_are_forgotten() -> None:
    casts = Casts()
    with torch.inference_mode(), computing_in(torch.bfloat16, casts):
        gone = weakref.ref(cast_weight(nn.Parameter(torch.ones(2), requires_grad=False), torch.bfloat16))
    assert gone() is not None
    casts.drop_changed()
    assert gone() is None


def test_a_weight_that_is_trained_is_cast_for_each_block() -> None:
    weight, casts = nn.Parameter(torch.ones(2, 2)), Casts()
    weight.grad = torch.full((2, 2), -1.0)

    def cast() -> torch.Tensor:
        with torch.inference_mode(), computing_in(torch.bfloat16, casts):
            return cast_weight(weight, torch.bfloat16)

    assert cast()[0, 0] == 1
    torch.optim.SGD([weight], lr=1.0, fused=True).step()  # which leaves the weight's version as it was
    assert cast()[0, 0] == 2


def test_a_weight_that_does_not_tell_its_changes_is_cast_for_each_block() -> None:
    casts = Casts()
    with torch.inference_mode():
        weight = torch.ones(2)
        for number in (1, 2):
            with computing_in(None, casts):
                assert cast_weight(weight, torch.bfloat16)[0] == number
            weight += 1


@pytest.mark.parametrize(("given", "expected"), [(torch.bfloat16, torch.float32), (torch.float16, torch.float32),
                                                 (torch.float32, torch.float32), (torch.float64, torch.float64)])
def test_sums_are_in_fp32_at_least(given: torch.dtype, expected: torch.dtype) -> None:
    assert at_least_fp32(torch.ones(1, dtype=given)).dtype is expected

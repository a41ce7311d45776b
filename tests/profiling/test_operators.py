"""What operators of torch do on a GPU, against torch's own formulas and sources, and against sums made by hand."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from minitx.profiling.operators import ADDRESSES, CHUNK, bytes_of, chunk_launches, flop_of, kind_of, launches_of

aten = torch.ops.aten
X = torch.zeros(100, 10)
INDEX = torch.zeros(7, dtype=torch.int64)


@pytest.mark.parametrize(("operator", "kind"), [
    (aten.mm.out, "product"), (aten.addmm.default, "product"), (aten.mv.default, "product"), (aten.t.default, "view"),
    (aten.new_empty.default, "view"), (aten._unsafe_view.default, "view"), (aten.clone.default, "copy"),
    (aten.fill_.Scalar, "copy"), (aten.masked_fill_.Scalar, "elementwise"), (aten.relu_.default, "elementwise"),
    (aten.softplus_backward.default, "elementwise"), (aten.index_add.default, "copy"),
    (aten.threshold_backward.grad_input, "elementwise"), (aten._foreach_lerp_.Scalar, "elementwise"),
    (aten._foreach_norm.Scalar, "reduction"), (aten.sum.dim_IntList, "reduction"), (aten._softmax.out, "reduction"),
    (aten._scaled_dot_product_efficient_attention_backward.default, "attention")])
def test_operators_have_a_kind(operator: Any, kind: str) -> None:
    assert kind_of(operator) == kind


def test_an_unknown_operator_is_named() -> None:
    with pytest.raises(NotImplementedError, match="aten.convolution.default"):
        kind_of(aten.convolution.default)


@pytest.mark.parametrize(("operator", "shapes"), [
    (aten.mm.default, [(3, 5), (5, 7)]), (aten.addmm.default, [(7,), (3, 5), (5, 7)]),
    (aten.bmm.default, [(2, 3, 5), (2, 5, 7)]), (aten.baddbmm.default, [(2, 3, 7), (2, 3, 5), (2, 5, 7)]),
    (aten._scaled_dot_product_efficient_attention.default, [(2, 4, 5, 8), (2, 4, 6, 8), (2, 4, 6, 8)]),
    (aten._scaled_dot_product_efficient_attention_backward.default,
     [(2, 4, 5, 8), (2, 4, 5, 8), (2, 4, 6, 8), (2, 4, 6, 8)])])
def test_operations_are_those_of_torchs_counter(operator: Any, shapes: list[tuple[int, ...]]) -> None:
    args = tuple(torch.empty(shape, device="meta") for shape in shapes)
    assert flop_of(operator, args) == flop_registry[operator.overloadpacket](*args, out_val=args[0])


BYTES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], int]] = {
    "read twice, at one place": (aten.mul.Tensor, (X, X), {}, 8000),
    "in place": (aten.add_.Tensor, (X, 1.0), {}, 8000),
    "filled": (aten.fill_.Scalar, (X, 1.0), {}, 4000),
    "copied": (aten.copy_.default, (X, torch.zeros(100, 10, dtype=torch.float64)), {}, 4000 + 8000),
    "into a given tensor": (aten.mm.out, (X, torch.zeros(10, 10)), {"out": torch.zeros(100, 10)}, 4000 + 400 + 4000),
    "expanded": (aten.neg.default, (torch.zeros(1).expand(1000),), {}, 4 + 4000),
    "looked up": (aten.index_select.default, (X, 0, INDEX), {}, 2 * 280 + 56),
    "put": (aten.put_.default, (X, INDEX, torch.zeros(7)), {}, 56 + 2 * 28),
    "put by two indices": (aten.index_put_.default, (X, [INDEX, INDEX + 1], torch.zeros(7)), {}, 2 * 56 + 2 * 28),
    "added to a copy": (aten.index_add.default, (X, 0, INDEX, torch.zeros(7, 10)), {}, 2 * 4000 + 56 + 280),
    "one number put": (aten.scatter_.value, (X, 0, INDEX[:, None], 1.0), {}, 56 + 7 * 4),
    "a view": (aten.t.default, (X,), {}, 0),
    "set aside": (aten.empty_like.default, (X,), {}, 0),
    "a list": (aten._foreach_lerp_.Scalar, ([X, X.clone()], [X + 1, X + 1], 0.5), {}, 6 * 4000),
}


@pytest.mark.parametrize("case", BYTES)
def test_bytes_are_those_read_and_written(case: str) -> None:
    operator, args, kwargs, expected = BYTES[case]
    assert bytes_of(operator, args, kwargs, operator(*args, **kwargs)) == expected


def test_adamw_reads_four_lists_and_writes_three() -> None:
    lists = [[torch.zeros(1000) for _ in range(3)] for _ in range(4)]
    steps = [torch.zeros(()) for _ in range(3)]
    nbytes = bytes_of(aten._fused_adamw_.default, (*lists, [], steps), {}, None)
    assert nbytes == 7 * 3 * 4000 + 3 * 4


@given(st.lists(st.integers(1, 40 * CHUNK), max_size=60), st.integers(1, 5), st.sampled_from(sorted(ADDRESSES)))
def test_launches_over_lists_are_those_of_torchs_loop(sizes: list[int], depth: int, argument_kib: int) -> None:
    max_tensors, max_blocks = ADDRESSES[argument_kib]
    launches = tensors = blocks = 0
    for size in sizes:
        tensors += 1
        chunks = -(-size // CHUNK)
        for chunk in range(chunks):
            blocks += 1
            last = chunk == chunks - 1
            if (tensors == max_tensors[depth - 1] and last) or blocks == max_blocks:
                launches, blocks, tensors = launches + 1, 0, int(not last)
    assert chunk_launches(sizes, depth, argument_kib) == launches + (blocks > 0)


def test_many_small_weights_and_one_large_one_take_several_launches() -> None:
    small = [torch.empty(10, device="meta") for _ in range(40)]
    adamw = (small, small, small, small, [], small)
    assert [launches_of(aten._fused_adamw_.default, adamw, {}, kib) for kib in (4, 32)] == [2, 1]
    table = [torch.empty(32_000, 1024, device="meta")]  # 500 chunks
    assert [launches_of(aten._foreach_mul_.Scalar, (table, 2.0), {}, kib) for kib in (4, 32)] == [2, 1]
    assert launches_of(aten._foreach_norm.Scalar, (small,), {}) == 3, "zeros, chunks, their sums"


@pytest.mark.parametrize(("tokens", "launches"), [(3072, 2), (4000, 12), (100_000, 15)])
def test_gradients_of_embeddings_are_sorted_where_there_are_many(tokens: int, launches: int) -> None:
    rows, index = torch.empty(tokens, 8, device="meta"), torch.empty(tokens, dtype=torch.int64, device="meta")
    assert launches_of(aten.embedding_dense_backward.default, (rows, index, 32_000, -1, False), {}) == launches


def test_what_looks_at_a_tensor_launches_nothing() -> None:
    view: Tensor = X.t()
    assert launches_of(aten.t.default, (view,), {}) == 0

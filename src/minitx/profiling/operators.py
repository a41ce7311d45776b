"""What an operator of torch does on a GPU: its kind, its products, the bytes that it moves, its launches.

An operator that no table and no rule knows is an error. Launches follow torch's sources for CUDA (ATen/native/cuda).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Arguments = tuple[Any, ...]
Product = tuple[int, int, int, int]  # as in `Kernel`

# Operators by name, without "aten." and overload. What torch itself calls pointwise, or a reduction, needs no entry.
ALLOCATES = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_",
             "_unsafe_view", "set_", "_reshape_alias", "lift_fresh", "detach_"}
PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "addmm": 1, "baddbmm": 1}  # the place of the first factor among the arguments
ATTENTION_FORWARD = {"_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
                     "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_flash_attention_for_cpu",
                     "_varlen_attn"}
ATTENTION = ATTENTION_FORWARD | {f"{name}_backward" for name in ATTENTION_FORWARD}
FILLS = {"fill_", "zero_", "zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones", "full", "full_like",
         "new_full", "scalar_tensor", "arange", "eye", "normal_", "uniform_", "random_", "randint", "bernoulli_",
         "randperm"}
LOOKUPS = {"embedding", "index_select", "index", "gather", "take", "take_along_dim"}  # read only what they write
PLACES = {"put_", "index_put", "index_put_", "_index_put_impl_", "index_copy_", "index_add_", "scatter_",
          "scatter_add_"}  # write only what they are given
COPIES = FILLS | LOOKUPS | PLACES | {
    "_to_copy", "copy_", "clone", "cat", "stack", "repeat", "constant_pad_nd", "triu_", "tril_", "triu", "tril",
    "select_backward", "slice_backward", "index_add", "_local_scalar_dense", "nonzero", "_foreach_copy_"}
REDUCTIONS = {"softmax", "_softmax", "_safe_softmax", "_softmax_backward_data", "_log_softmax",
              "_log_softmax_backward_data", "native_layer_norm", "native_layer_norm_backward",
              "embedding_dense_backward", "_foreach_norm", "cumsum"}
ELEMENTWISE = {"native_dropout", "floor_divide", "softplus_backward", "_fused_adamw_"}  # and all "_foreach..."
READ_ONLY = {"_fused_adamw_": "grads"}  # which it would write if it were to undo a scaling
FORMATS = {torch.float16: "half", torch.bfloat16: "half", torch.float32: "float", torch.float64: "double"}

CHUNK = 2**16  # elements that one block of a fused optimizer or a foreach operator takes (MultiTensorApply.cuh)
ADDRESSES = {4: ((110, 64, 48, 36, 30), 320), 32: ((770, 448, 336, 252, 210), 2240)}  # by KiB of arguments that a
# kernel may have: tensors of a launch by the number of lists, and blocks
CLEANED = 512  # norms that one block each of a last launch adds up (ForeachReduceOp.cu)
FEW_LOOKUPS = 3072  # up to here the gradient of an embedding is one kernel (Embedding.cu)
FEW_KEYS = 2**12  # which CUB sorts in one kernel


def name_of(operator: Any) -> str:
    """Return an operator's name without its overload and "aten."."""
    name: str = operator._schema.name
    return name.rpartition("::")[2]


@cache
def kind_of(operator: Any) -> str:
    """Return the kind of an operator's kernels, as `Kernel` names it. Errors: NotImplementedError if none is known."""
    name = name_of(operator)
    if is_free(operator):
        return "view"
    for kind, names in (("product", PRODUCTS), ("attention", ATTENTION), ("copy", COPIES), ("reduction", REDUCTIONS),
                        ("elementwise", ELEMENTWISE)):
        if name in names:
            return kind
    if name.startswith("_foreach"):
        return "elementwise"
    tags = set(family_tags(name))
    if torch.Tag.pointwise in tags:
        return "elementwise"
    if torch.Tag.reduction in tags:
        return "reduction"
    raise NotImplementedError(f"{operator}: what it does on a GPU is not known; add it to profiling/operators.py")


def family_tags(name: str) -> Iterator[Any]:
    """Yield the tags of an operator, whether it is written in place, into a given tensor, or neither."""
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    for overload in [] if packet is None else packet.overloads():
        yield from getattr(packet, overload).tags


def is_varlen(operator: Any) -> bool:
    """Tell whether an operator is attention over packed sentences: its work depends on where they begin."""
    return name_of(operator) in ("_varlen_attn", "_varlen_attn_backward")


def product_of(operator: Any, args: Arguments) -> Product | None:
    """Return the shape of what an operator multiplies, or None; attention's is that of one of its products."""
    name = name_of(operator)
    if name in PRODUCTS:
        first, second = args[PRODUCTS[name]:][:2]
        *batch, rows, inner = first.shape
        return prod(batch), rows, 1 if second.dim() == 1 else second.shape[-1], inner
    if name in ATTENTION and not is_varlen(operator):
        q, k = args[name.endswith("_backward"):][:2]
        batch, heads, length, width = q.shape
        return batch * heads, length, k.shape[2], width
    return None


def flop_of(operator: Any, args: Arguments) -> float:
    """Return the operations of an operator's products, a multiply-add as two; a causal square counts as whole."""
    product = product_of(operator, args)
    return 0.0 if product is None else 2.0 * products_of(operator) * prod(product)


def products_of(operator: Any) -> int:
    """Return how many products an operator takes: attention two, and backwards five, the scores being made again."""
    name = name_of(operator)
    return 1 if name not in ATTENTION else 5 if name.endswith("_backward") else 2


def varlen_work(operator: Any, args: Arguments, q_starts: Sequence[int], k_starts: Sequence[int]) -> tuple[
        Product, float]:
    """Return what `product_of` and `flop_of` do, of attention over packed sentences that begin at these rows.

    The shape is that of the longest sentence, for as many of them as make the same work. A window counts as if it were
    full wherever a sentence is longer.
    """
    _, heads, width = args[name_of(operator).endswith("_backward")].shape
    before, after = next(value for value in args if isinstance(value, (list, tuple)))
    seen = before + after + 1 if min(before, after) >= 0 else max(k_starts)
    pairs = [(b - a, min(d - c, seen)) for a, b, c, d in zip(q_starts, q_starts[1:], k_starts, k_starts[1:],
                                                             strict=False)]
    scores = sum(length * keys for length, keys in pairs)
    longest, most = max(length for length, _ in pairs), max(keys for _, keys in pairs)
    return ((heads * ceil(scores / (longest * most)), longest, most, width),
            2.0 * products_of(operator) * heads * width * scores)


def format_of(args: Arguments, result: Any) -> str:
    """Return the number format that is computed in: the finest among what is read and written."""
    dtypes = {t.dtype for t in tensors_in((args, result))}
    found = {FORMATS[dtype] for dtype in dtypes if dtype in FORMATS}
    return next((name for name in ("double", "float", "half") if name in found), "int")


def bytes_of(operator: Any, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> int:
    """Return the bytes that an operator reads and writes, each tensor once: the traffic without any cache."""
    if is_free(operator):
        return 0
    name = name_of(operator)
    if name in LOOKUPS:
        return 2 * _stored(tensors_in(result)) + _stored(t for t in tensors_in(args) if not t.is_floating_point())
    if name in PLACES:
        _, *indices, values = tensors_in((args, kwargs))
        if not indices:  # a number for all of the places
            return _stored([values]) + values.numel() * int(args[0].element_size())
        return _stored(indices) + 2 * _stored([values])
    written, read = list[Any](tensors_in(result)), list[Any]()
    for argument, value in named_arguments(operator, args, kwargs):
        changes = argument.alias_info is not None and argument.alias_info.is_write
        if changes and argument.name != READ_ONLY.get(name):
            written.append(value)
        if not argument.is_out and not (changes and name in FILLS | {"copy_", "_foreach_copy_"}):
            read.append(value)
    return _stored(tensors_in(read)) + _stored(tensors_in(written))


def is_free(operator: Any) -> bool:
    """Tell whether an operator runs no kernel: it looks at a tensor in another way, or sets memory aside."""
    return bool(operator.is_view) or name_of(operator) in ALLOCATES


def named_arguments(operator: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each argument's declaration and what is given for it."""
    for place, argument in enumerate(operator._schema.arguments):
        if place < len(args):
            yield argument, args[place]
        elif argument.name in kwargs:
            yield argument, kwargs[argument.name]


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, in order."""
    return (t for t in tree_leaves(values) if isinstance(t, Tensor))


def _stored(tensors: Iterable[Tensor]) -> int:
    """Add up what these tensors hold, each once, and what is expanded once, too."""
    def elements(t: Tensor) -> int:
        if t.layout is not torch.strided:
            return t.numel()
        return prod(n for n, stride in zip(t.shape, t.stride(), strict=True) if stride or n == 0)

    return sum(t.element_size() * elements(t) for t in {id(t): t for t in tensors}.values())


def launches_of(operator: Any, args: Arguments, kwargs: Mapping[str, Any], argument_kib: int = 32) -> int:
    """Return how many kernels an operator launches.

    argument_kib: that a kernel's arguments may take: 32 with CUDA 13, 4 before
    """
    name = name_of(operator)
    if kind_of(operator) == "view":
        return 0
    if name.startswith(("_foreach", "_fused")):
        return _foreach_launches(name, args, argument_kib)
    if name == "embedding_dense_backward":
        _, index, vocabulary, *_ = args
        return 2 if index.numel() <= FEW_LOOKUPS else 11 + _sort_launches(index.numel(), vocabulary)
    if name in ("index_put", "index_put_", "_index_put_impl_") and (args[3:4] == (True,) or kwargs.get("accumulate")):
        indices = [t for t in args[1] if t is not None]
        return 4 * len(indices) + 2 + _sort_launches(max(t.numel() for t in indices), args[0].numel())
    return LAUNCHES.get(name, 1)


LAUNCHES = {  # of an operator, if not one
    "select_backward": 2, "slice_backward": 2,  # zeros, and a copy into them
    "index_add": 2,  # a copy, and the addition to it
    "native_layer_norm_backward": 2,  # by the input; by scale and shift
    "logsumexp": 7, "_safe_softmax": 5,  # composed of others
    "_varlen_attn_backward": 3, "_scaled_dot_product_flash_attention_backward": 3,  # products with the result; all
    "_scaled_dot_product_cudnn_attention_backward": 3,                              # gradients; a cast of the queries'
    "_scaled_dot_product_efficient_attention_backward": 3,
    "_varlen_attn": 2,  # and zeros for a generator's state
}  # fmt: skip


def _sort_launches(keys: int, distinct: int) -> int:
    """Return the kernels in which CUB sorts: one for few keys; else a histogram, its sums, and one for each 8 bits."""
    return 1 if keys <= FEW_KEYS else 2 + ceil(max(1, (distinct - 1).bit_length()) / 8)


def _foreach_launches(name: str, args: Arguments, argument_kib: int) -> int:
    """Return the kernels over lists of tensors: each takes so many tensors and so many chunks."""
    sizes = [t.numel() for t in args[0] if t.numel()]
    lists = [value for value in args if isinstance(value, (list, tuple)) and len(value) == len(args[0])]
    if name.startswith("_fused"):
        depth = 4 if len(lists) < 6 else 5  # weights, gradients, two averages; steps are read on the side
    else:
        depth = len(lists) + (not name.endswith("_") and name != "_foreach_norm")
    launches = chunk_launches(sizes, depth, argument_kib)
    return launches + 1 + ceil(len(sizes) / CLEANED) if name == "_foreach_norm" else launches


def chunk_launches(sizes: Sequence[int], depth: int, argument_kib: int) -> int:
    """Return the launches of `multi_tensor_apply` over `depth` lists of tensors with these numbers of elements."""
    tensors, blocks_at_once = ADDRESSES[argument_kib]
    launches = held = blocks = 0
    for size in sizes:
        held += 1
        chunks = ceil(size / CHUNK)
        while blocks + chunks >= blocks_at_once:  # the blocks are full, in the middle of this tensor or at its end
            chunks -= blocks_at_once - blocks
            launches, blocks, held = launches + 1, 0, int(chunks > 0)
        blocks += chunks
        if chunks and held == tensors[depth - 1]:
            launches, blocks, held = launches + 1, 0, 0
    return launches + (blocks > 0)

"""Kernels: what a device runs during one update, with the work of each."""

from dataclasses import dataclass

KINDS = ("product", "attention", "elementwise", "reduction", "copy")


@dataclass(frozen=True)
class Kernel:
    """One operator of an update and the kernel that it launches; `kind` "view" = none, but the host spends time on it.

    A product of `batch` matrices, [rows, inner] @ [inner, columns]; attention: of B x H heads, [L, d] @ [d, S] and
    back.
    """

    name: str  # of the operator, as torch calls it: "aten.mm"
    kind: str  # one of KINDS, or "view"
    phase: str  # "forward", "backward", "optimizer"
    dtype: str  # "half" (bf16 or fp16), "float", "double", "int": the format that it computes in
    flop: float  # a multiply-add as two; of products and attention alone
    nbytes: float  # read and written, each tensor once
    product: tuple[int, int, int, int] | None = None  # batch, rows, columns, inner
    launched_by: str = "operator"  # "library": one of many that a single call of cuDNN launches
    launches: int = 1  # kernels that one operator launches, as a fused optimizer does
    host_waits: bool = False  # the host reads a result, and waits for all before
    steps: int = 1  # each of which needs the one before: a recurrence in one kernel has one for each token

"""What bounds an update: where the device waits, and what takes the seconds of its kernels."""

from collections import Counter
from collections.abc import Sequence

from minitx.profiling.kernels import Kernel
from minitx.profiling.timeline import Pace, Timeline

LIMITS = {  # what a second is lost to, and that in words
    "host": "the host, which issues operators more slowly than the GPU runs them",
    "recurrence": "steps of recurrence, each of which waits for the one before",
    "starts": "small kernels: starting and ending them takes longer than their work",
    "products": "the arithmetic of products",
    "memory": "bytes to and from memory",
}


def seconds_by_limit(kernels: Sequence[Kernel], pace: Pace, found: Timeline) -> dict[str, float]:
    """Return the seconds of one update by what they are lost to; they add up to those of its timeline.

    A kernel's work is lost to the slower of its arithmetic and its bytes; its floor to recurrence where a library
    launches a kernel for each step, or one kernel takes them all, else to its start.
    """
    seconds = dict.fromkeys(LIMITS, 0.0)
    for kernel, times in Counter(kernels).items():
        if kernel.kind != "view":
            taken = pace.kernel(kernel)
            step_by_step = kernel.launched_by == "library" or kernel.steps > 1
            seconds["recurrence" if step_by_step else "starts"] += times * taken.floor_s
            seconds["products" if taken.work_s > pace.memory_s(kernel) else "memory"] += times * taken.work_s
    seconds["host"] = max(0.0, found.seconds - found.busy_s)
    return seconds

"""How a run ends: its status by what stopped it, and its exit code by its status."""

from minitx.utils.errors import Exit

STATUS_OF = {"interrupted": "interrupted", "terminated": "terminated", "requeued": "terminated",
             "max_nonfinite": "diverged"}
EXIT_OF = {"finished": Exit.OK, "interrupted": Exit.INTERRUPTED, "terminated": Exit.TERMINATED,
           "diverged": Exit.DIVERGED}


def status_of(stop_reason: str | None) -> str:
    """Return the status of a run that stops for this reason: any limit finishes it."""
    return STATUS_OF.get(stop_reason or "", "finished")

"""A worker in one system's environment: `python -m benchmarks.worker SYSTEM train|decode JOB` prints JSON lines."""

import sys
from importlib import import_module

from benchmarks.work import Job, Report


def main() -> None:
    """Train or decode until done, or until killed."""
    system, action, job = sys.argv[1:]
    peer = import_module(f"benchmarks.peers.{system}")
    getattr(peer, action)(Job.parse(job), Report())


if __name__ == "__main__":
    main()

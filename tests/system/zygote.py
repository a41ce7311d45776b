"""Many short runs at the price of one start: a process that imports all, then forks a child for each command.

A child does what the command does from its `main` on: what happens before, as the interpreter starts and the allocator
is tuned, is for tests of real processes. It can be killed at a place of our choice: `Kill(place, nth, share)` is the
nth time it gets there, and where the place is a write, after that share of the bytes.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
WRITES = {"checkpoint write": ".step-", "model write": ".model.safetensors", "metrics write": "metrics.jsonl"}


class Kill(NamedTuple):
    place: str
    nth: int
    share: float = 0.0


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str
    seconds: float


class Zygote:
    """Ask the process for commands, one after the other."""

    def __init__(self, folder: Path, allocator: dict[str, str] | None = None, root: Path = ROOT) -> None:
        """folder: where it leaves its output, and works unless told otherwise. root: the checkout whose code runs."""
        self.root, self.folder = root, folder
        names = ("MALLOC_", "GLIBC_", "OMP_", "MKL_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        env |= {"PYTHONPATH": f"{root / 'src'}:{root / 'tests'}", "MINITX_ALLOCATOR": "as it is",
                "OMP_NUM_THREADS": "1", "MINITX_CACHE": str(folder / "cache")} | (allocator or {})
        self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=env, cwd=folder)

    def run(self, argv: list[str], kill: Kill | None = None, ranks: int = 1, on: int | None = None,
            notes: Path | None = None, deadline_s: float = 300, program: str = "train.py", stdin: str = "",
            cwd: Path | None = None) -> Done:
        """Run the command, or so many ranks of it as torchrun would start; `on` is the one that is to be killed.

        program: a key of `PROGRAMS`. notes: where each process writes what it trains on
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        streams = [self.folder / name for name in ("stdin", "stdout", "stderr")]
        for path, content in zip(streams, (stdin, "", ""), strict=True):
            path.write_text(content, encoding="utf-8")
        job = {"argv": [str(self.root / program), *argv], "kill": kill, "streams": [str(path) for path in streams],
               "ranks": ranks, "on": on, "notes": notes and str(notes), "deadline_s": deadline_s,
               "cwd": str(cwd or self.folder)}
        print(json.dumps(job), file=self.process.stdin, flush=True)
        returncode, seconds = json.loads(self.process.stdout.readline())
        return Done(returncode, *(path.read_text(encoding="utf-8") for path in streams[1:]), seconds)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# --- in the process


def serve() -> None:
    import lightning.pytorch  # noqa: F401  what follows would import it late, in each child

    import minitx.training.worker  # noqa: F401

    for line in sys.stdin:
        job, began = json.loads(line), time.monotonic()
        with TemporaryDirectory() as folder:
            children = [fork(job, rank, folder) for rank in range(job["ranks"])]
            codes = [os.waitstatus_to_exitcode(status) for status in waited(children, job["deadline_s"])]
        print(json.dumps([min(codes) or max(codes), time.monotonic() - began]), flush=True)


def waited(children: list[int], deadline_s: float) -> Iterator[int]:
    """Yield each child's status; none of them outlives the deadline."""
    deadline = time.monotonic() + deadline_s
    for child in children:
        while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        yield found[1]


def train() -> None:
    from minitx.cli.train import main

    main()


def minitx() -> None:
    from minitx.cli.main import main

    sys.exit(main())


def python() -> None:
    """Do `python -c CODE`."""
    exec(sys.argv[2], {"__name__": "__main__"})


PROGRAMS = {"train.py": train, "minitx": minitx, "python": python}


def fork(job: dict[str, Any], rank: int, folder: str) -> int:
    """Begin a child, which does not come back. --> its pid"""
    if child := os.fork():
        return child
    stdin, stdout, stderr = job["streams"]
    for number, file in enumerate((open(stdin), open(stdout, "a"), open(stderr, "a"))):  # noqa: SIM115
        os.dup2(file.fileno(), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  the parent's may have read ahead
    os.chdir(job["cwd"])
    sys.argv = job["argv"]
    if job["ranks"] > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["ranks"], "LOCAL_WORLD_SIZE": job["ranks"]}
        os.environ |= {name: str(value) for name, value in place.items()}
        os.environ |= {"TORCHELASTIC_RUN_ID": "zygote", "MINITX_RANKS": folder, "GLOO_SOCKET_IFNAME": "lo"}
    if job["kill"] is not None and job["on"] in (None, rank):
        arm(Kill(*job["kill"]))
    if job["notes"] is not None:
        take_notes(Path(job["notes"], f"{time.monotonic_ns()}.{rank}"))
    code = 1
    try:
        PROGRAMS[Path(sys.argv[0]).name]()
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def take_notes(path: Path) -> None:
    """Write down for each update its position, this process's KiB of memory, and the sources of this rank's turns."""
    from toys import sentences

    from minitx.training.task import TranslationTask

    inner, file = TranslationTask.training_step, path.open("w")

    def step(task: Any, planned: Any, number: int) -> None:
        inner(task, planned, number)
        kib = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line)
        sources = [ids for turn in planned.turns if turn.weight for ids in sentences(turn.batch.src)]
        print(planned.epoch, planned.update, kib, json.dumps(sources), sep="\t", file=file, flush=True)

    TranslationTask.training_step = step  # type: ignore[method-assign]


def arm(kill: Kill) -> None:
    """Put a trap at each place."""
    from minitx.training.task import TranslationTask
    from minitx.training.validation import Validator

    times = {kill.place: kill.nth}

    def due(place: str) -> bool:
        times[place] = times.get(place, 0) - 1
        return times[place] == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def trap(owner: Any, name: str, place: str, matches: Any = lambda *_: True) -> None:
        """Die as the function is entered ("before ...") or left ("after ...")."""
        inner = getattr(owner, name)

        def trapped(*args: Any, **kwargs: Any) -> Any:
            counts = matches(*args)
            if counts and due(f"before {place}"):
                die()
            result = inner(*args, **kwargs)
            if counts and due(f"after {place}"):
                die()
            return result

        setattr(owner, name, trapped)

    def is_checkpoint_file(fd: int) -> bool:
        return Path(os.readlink(f"/proc/self/fd/{fd}")).name.startswith(".step-")

    trap(TranslationTask, "training_step", "update")
    if kill.place == "read-only":  # not a kill: the folder of the checkpoints, mounted on itself, turns so
        inner_step, folder = TranslationTask.training_step, next(w[8:] for w in sys.argv if w.startswith("run_dir="))

        def step(*args: Any) -> None:
            inner_step(*args)
            if due("read-only"):
                subprocess.run(["mount", "-o", "remount,bind,ro", f"{folder}/checkpoints"], check=True)

        TranslationTask.training_step = step  # type: ignore[method-assign]
    trap(Validator, "loss", "validation loss")
    trap(os, "fsync", "fsync", is_checkpoint_file)
    trap(Path, "replace", "rename", lambda path, _: path.name.startswith(".step-"))
    trap(Path, "unlink", "prune", lambda path, *_: path.name.startswith("step-"))
    inner_open = Path.open

    def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        place = next((name for name, start in WRITES.items() if path.name.startswith(start)), None)
        file = inner_open(path, mode, *args, **kwargs)
        return file if place is None or "r" in mode else partly(file, place)

    @contextmanager
    def partly(file: Any, place: str) -> Iterator[Any]:
        with file:
            inner_write = file.write

            class Written:
                def write(self, content: Any) -> None:
                    if due(place):
                        inner_write(content[: int(kill.share * len(content))])
                        file.flush()
                        die()
                    inner_write(content)

                flush, fileno = file.flush, file.fileno

            yield Written()

    Path.open = opened  # type: ignore[method-assign]


if __name__ == "__main__":
    serve()

"""All that a quarter of an hour on a GPU can tell, in one command that gives up nothing that it has seen.

    scripts/gpu_run.sh --out FOLDER

Parts, the most valuable first: is the GPU right (checks), what does an update take (updates), what is that made of
(constants), how good is a translator after so many seconds (trainings). Each has its share of the time and a file in
FOLDER, which is whole after each row. What fails, hangs or kills its process costs its own row; a second start does
what is missing. `gpu_merge.py` makes a file for results/ of it.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from types import FrameType

from gpu_rows import Row, Sheet, failed

from minitx.utils.console import Console, duration
from minitx.utils.errors import Exit

SHARES = {"checks": 80, "updates": 215, "constants": 45, "trainings": 200}  # of the time, such as seconds of 540
WORKER = Path(__file__).with_name("gpu_part.py")
LOOKS_S = 0.2  # between two looks at a part's process
LATE_S = 5.0  # that a part may take longer, for the row that it is at
LATE = "its time was up"  # then that row is as good as not begun


@dataclass(frozen=True)
class Plan:
    """Which parts are to be done, where their files lie, and how a part's process is started."""

    parts: Sequence[str]
    out: Path
    until: float  # (monotonic) when all is over
    program: Sequence[str]  # what runs a part, with options that all parts are given
    console: Console

    def path(self, part: str) -> Path:
        """Return the part's file."""
        return self.out / f"{part}.json"

    def share_s(self, part: str) -> float:
        """Return the seconds that a part may take now: its share of what is left, of the parts that are not done."""
        later = self.parts[self.parts.index(part):]
        shares = [SHARES[name] for name in later if not Sheet.read(self.path(name)).is_done]
        return (self.until - monotonic()) * SHARES[part] / sum(shares)


def run_parts(plan: Plan) -> list[Row]:
    """Do each part that is not done, and return all rows."""
    for number, part in enumerate(plan.parts, 1):
        sheet = Sheet.read(plan.path(part))
        if sheet.is_done:
            plan.console.line(f"[{number}/{len(plan.parts)}] {part}: done before, {len(sheet.rows)} rows")
            continue
        share_s, began = plan.share_s(part), monotonic()
        plan.console.line(f"[{number}/{len(plan.parts)}] {part}: at most {duration(share_s)}; all parts: "
                          f"eta at most {duration(plan.until - began)}")
        run_part(plan, part, began + share_s)
        sheet = Sheet.read(plan.path(part))
        plan.console.line(f"[{number}/{len(plan.parts)}] {part}: {len(sheet.rows)} of {len(sheet.planned)} rows in "
                          f"{duration(monotonic() - began)}, {len(failed(sheet.rows))} failed")
    return [row for part in plan.parts for row in Sheet.read(plan.path(part)).rows]


def run_part(plan: Plan, part: str, until: float) -> None:
    """Run a part's process, and another one each time that a row has ended it, until then (`monotonic`)."""
    path = plan.path(part)
    while (left := until - monotonic()) > 0:
        sheet = replace(Sheet.read(path), running=None)  # what an earlier start was at when it was killed
        sheet.write(path)
        before = len(sheet.rows)
        child = subprocess.Popen([*plan.program, part, "--out", str(path), "--seconds", str(left), "--leader"],
                                 stdin=subprocess.PIPE, start_new_session=True)
        try:
            why = watch(child, path, until + LATE_S)
        finally:
            end(child)
        sheet = Sheet.read(path)
        if sheet.running is not None and why != LATE:
            row = Row(sheet.running.name, "failed", why, round(sheet.running.age_s, 2), {})
            plan.console.line(f"  {row}")
            sheet = sheet.add(row)
            sheet.write(path)
        if child.returncode == Exit.USAGE:  # it has said what is wrong, and would say so of each part
            sys.exit(int(Exit.USAGE))
        if child.returncode == 0 or len(sheet.rows) == before:
            if not sheet.rows:
                plan.console.line(f"  {part}: {why} before its first row")
            return


def watch(child: "subprocess.Popen[bytes]", path: Path, until: float) -> str:
    """Wait until a part's process ends, hangs at a row, or has no time left, and say which of these."""
    while (code := child.poll()) is None:
        running = Sheet.read(path).running
        if monotonic() > until:
            return LATE
        if running is not None and running.age_s > running.limit_s:
            return f"hung: not ready after {duration(running.limit_s)}"
        time.sleep(LOOKS_S)
    return f"its process was ended by {signal.Signals(-code).name}" if code < 0 else f"its process ended with {code}"


def end(child: "subprocess.Popen[bytes]") -> None:
    """End a part's process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def stop(number: int, _: FrameType | None) -> None:
    """End this program as a shell would report it; what is being worked on is done by the next start."""
    sys.exit(128 + number)


def main(argv: list[str] | None = None, worker: Path = WORKER) -> int:
    """Run all parts, each by the program `worker`. Exit code 1 if a row failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu_run")),
                        help="folder for a file a part (default: $OUT, else %(default)s)")
    parser.add_argument("--seconds", type=float, default=535, help="that all may take (%(default)g)")
    parser.add_argument("--parts", default=",".join(SHARES), help="which, with commas (%(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal")
    parser.add_argument("--toys", action="store_true", help="tiny models, a moment each: a rehearsal")
    parser.add_argument("--retry", action="store_true", help="try rows that failed before again")
    parser.add_argument("--commit", help="of this source, where it has no repository beside it")
    args = parser.parse_args(argv)
    if args.device == "cpu" and not args.toys:
        parser.error("--device cpu: is for rehearsals; add --toys")
    if unknown := [part for part in args.parts.split(",") if part not in SHARES]:
        parser.error(f"--parts: {', '.join(unknown)}: is none of {', '.join(SHARES)}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    began, console = monotonic(), Console(sys.stdout)
    args.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="minitx-gpu-", ignore_cleanup_errors=True) as scratch:
        program = [sys.executable, str(worker), "--device", args.device, "--scratch",
                   scratch, *(["--toys"] if args.toys else []), *(["--commit", args.commit] if args.commit else [])]
        plan = Plan(args.parts.split(","), args.out, began + args.seconds, program, console)
        if args.retry:
            for path in map(plan.path, plan.parts):
                Sheet.read(path).without_failed().write(path)
        rows = run_parts(plan)
    bad = failed(rows)
    console.line(f"{len(rows)} rows in {duration(monotonic() - began)}, {len(bad)} failed"
                 f"{': ' + '; '.join(bad) if bad else ''}; {args.out}")
    return int(Exit.CRASH if bad else Exit.OK)


if __name__ == "__main__":
    sys.exit(main())

"""Make one small file for results/gpu/ of what `gpu_run.py` wrote: updates, constants, trainings, and what was checked.

`python scripts/gpu_merge.py FOLDER` names it after the GPU. Rows that failed or were unseen are told as such.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from gpu_rows import Row, Sheet, different
from gpu_run import SHARES

from minitx.utils.console import Console
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

CODE = {"git_sha", "git_dirty"}  # a part may be made anew once it is mended
TOP = Path(__file__).resolve().parents[1]
UPDATE = ("system", "size", "precision", "compile", "update_ms", "tgt_tokens_per_s", "mfu_pct", "busy_pct",
          "memory_gib", "energy_wh", "sentences", "src_len", "tgt_len", "vocab_size", "params", "flop", "seconds",
          "updates", "peak_tflops", "peak_source", "overrides")  # `energy_wh`, `seconds`: of so many `updates`


def merge(folder: Path) -> dict[str, Any]:
    """Put the parts together. Errors: `UserError` if there are none, or they come from different machines."""
    sheets = {part: sheet for part in SHARES if (sheet := Sheet.read(folder / f"{part}.json")).rows}
    if not sheets:
        raise UserError(f"{folder}: holds no rows of gpu_run.py")
    first, conditions = next(iter(sheets)), next(iter(sheets.values())).conditions
    for part, sheet in sheets.items():
        if differ := set(different(conditions, sheet.conditions)) - CODE:
            raise UserError(f"{folder}: {first}.json and {part}.json differ in {', '.join(sorted(differ))}; the parts "
                            "of a run are made on one machine")
    code = {part: {name: sheet.conditions[name] for name in sorted(CODE)} for part, sheet in sheets.items()}

    def ok(part: str) -> list[Row]:
        return [row for row in sheets[part].rows if row.status == "ok"] if part in sheets else []

    other = [{"part": part, "name": row.name, "status": row.status, "text": row.text}
             for part, sheet in sheets.items() for row in sheet.rows if row.status != "ok"]
    late = [{"part": part, "name": name, "status": "late", "text": "no time was left"}
            for part, sheet in sheets.items() for name in sheet.missing]
    return {"conditions": {name: value for name, value in conditions.items() if name not in CODE}, "code": code,
            "updates": [{name: row.values[name] for name in UPDATE} for row in ok("updates")],
            "constants": {row.name: row.values for row in ok("constants")},
            "trainings": [{"system": row.name} | row.values for row in ok("trainings")],
            "checks": {row.name: row.text for row in ok("checks")}, "not_measured": other + late}


def name_of(merged: dict[str, Any]) -> str:
    """Name the file after the GPU. Errors: `UserError` for a rehearsal, which measures nothing."""
    conditions = merged["conditions"]
    if conditions["toys"] or conditions["device"] != "cuda":
        raise UserError("this was a rehearsal (--toys): its numbers are no results; --out writes them elsewhere")
    return re.sub(r"\W+", "-", conditions["hardware"]["gpu"].removeprefix("NVIDIA ")) + ".json"


def main(argv: list[str] | None = None) -> int:
    """Merge a folder into one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what gpu_run.py was given as --out")
    parser.add_argument("--out", type=Path, help="file (default: results/gpu/GPU.json)")
    args = parser.parse_args(argv)
    try:
        merged = merge(args.folder)
        path = args.out or TOP / "results" / "gpu" / name_of(merged)
    except UserError as error:
        print(f"gpu_merge: error: {error}", file=sys.stderr)
        return int(error.code)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(merged, indent=1) + "\n").encode())
    Console(sys.stdout).line(f"{len(merged['updates'])} updates, {len(merged['trainings'])} trainings, "
                             f"{len(merged['not_measured'])} rows not measured; {path}")
    return int(Exit.OK)


if __name__ == "__main__":
    sys.exit(main())

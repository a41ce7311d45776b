"""What a run recorded while it trained: metrics.jsonl, which may end halfway through a line."""

import json
from pathlib import Path
from typing import Any


def read_records(run_dir: Path) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl, without lines that are damaged or only half written; none without a file."""
    try:
        lines = (run_dir / "metrics.jsonl").read_bytes().splitlines()
    except OSError:
        return []
    records = list[dict[str, Any]]()
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int | float):
            records.append(record)
    return records

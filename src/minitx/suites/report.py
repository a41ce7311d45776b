"""The ledger and its tables: a published run is one small JSON under results/, and README's numbers come from these.

A row holds the run's result and its validation curve, and no sentence of anybody's.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minitx.console import duration
from minitx.errors import UserError
from minitx.result import Result

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def add(run_dir: Path, ledger: Path) -> Path:
    """Copy a finished run into the ledger and return its row's file. Errors: `UserError` for any other run."""
    path = run_dir / "result.json"
    if not path.exists():
        raise UserError(f"{run_dir}: no result.json, so nothing to publish")
    result = Result.read(path)
    if result.status != "finished":
        raise UserError(f"{run_dir}: the run is {result.status}; only finished runs are published")
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    columns = ("step", "train_s", "loss", "bleu")
    curve = [[record[name] for name in columns] for record in records if record["event"] == "valid"]
    row = json.loads(result.json()) | {"curve": {"columns": columns, "rows": curve}}
    ledger.mkdir(exist_ok=True)
    place = ledger / f"{result.data}_{result.src}_{result.tgt}_{result.model}.{result.config_sha256[:8]}.json"
    place.write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return place


def read(ledger: Path) -> list[Row]:
    """Return the ledger's rows in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) | {"row": path.stem} for path in sorted(ledger.glob("*.json"))]


def _score(test_set: str, key: str, unit: str = "") -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row["test"].get(test_set, {}).get(key)
        return "-" if value is None else f"{value:.1f}{unit}"

    return cell


COMMON: list[Column] = [
    ("model", lambda row: row["model"] + (" (uncommitted code)" if row["git_dirty"] else "")),
    ("parameters", lambda row: f"{row['params']:,}"),
    ("steps", lambda row: f"{row['steps']:,}"),
    ("training", lambda row: duration(row["train_s"])),
    ("target tokens/s", lambda row: f"{row['tgt_tokens_per_s']:,.0f}"),
]
TABLES: dict[str, tuple[Callable[[Row], bool], list[Column]]] = {
    "embedded": (lambda row: row["data"] == "synthetic", [
        *COMMON,
        ("test BLEU", _score("test", "bleu")),
        ("roles right", _score("minimal_pairs", "role_accuracy_pct", " %")),
        ("dictionary BLEU", _score("test", "dictionary_bleu")),
    ]),
    "multi30k": (lambda row: row["data"] == "multi30k", [
        ("direction", lambda row: f"{row['src']}-{row['tgt']}"),
        *COMMON,
        ("test_2016_flickr BLEU", _score("test_2016_flickr", "bleu")),
        ("chrF", _score("test_2016_flickr", "chrf")),
    ]),
}


def table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Write rows as a Markdown table, and below it the conditions they share or differ in."""
    lines = ["| " + " | ".join(name for name, _ in columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(cell(row) for _, cell in columns) + " |" for row in rows]
    return "\n".join([*lines, "", *_conditions(rows)])


def _conditions(rows: Sequence[Row]) -> list[str]:
    notes = {
        "Hardware": {f"{row['hardware'].get('gpu') or row['hardware']['cpu']}, {row['hardware']['cores']} cores, "
                     f"{row['threads']} threads, {row['precision']}" for row in rows},
        "Seed": {str(row["seed"]) for row in rows},
        "Search": {f"beam {decode['beam_size']}, length penalty {decode['length_penalty']}"
                   for decode in (row["decode"] for row in rows)},
        "BLEU": {f"`{score['bleu_signature']}`" for row in rows for score in row["test"].values()},
        "Versions": {f"torch {row['versions']['torch']}, lightning {row['versions']['lightning']}" for row in rows},
    }
    return [f"{name}: {'; '.join(sorted(values))}." for name, values in notes.items()]


def fill(text: str, rows: Sequence[Row]) -> str:
    """Put each table between `<!-- report: NAME -->` and `<!-- /report -->`. Errors: `UserError` for a lost marker."""
    for name, (wanted, columns) in TABLES.items():
        start, end = f"<!-- report: {name} -->\n", "<!-- /report -->"
        head, found, rest = text.partition(start)
        if not found or end not in rest:
            raise UserError(f"README.md: the markers {start.strip()} ... {end} are not there")
        chosen = [row for row in rows if wanted(row)]
        body = table(chosen, columns) if chosen else "No run published yet."
        text = f"{head}{start}{body}\n{end}{rest.partition(end)[2]}"
    return text


def main(ledger: Path, readme: Path, runs: Sequence[Path] = ()) -> None:
    """Add runs to the ledger, then write its tables into README, byte for byte the same for the same rows."""
    for run_dir in runs:
        print(f"published {add(run_dir, ledger)}")
    text = readme.read_text(encoding="utf-8")
    if (filled := fill(text, read(ledger))) != text:
        readme.write_text(filled, encoding="utf-8")
        print(f"{readme}: tables written")
    else:
        print(f"{readme}: tables are up to date")

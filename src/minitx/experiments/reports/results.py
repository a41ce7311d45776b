"""The ledger: a folder with one file, a row, for each published run.

A row holds the run's result, the command that repeats it, its validation curve and, for each test sentence, the counts
that BLEU is computed from. It is checked when it is added and each time it is read: the run finished, with finite
updates and weights drawn from its seed; BLEU follows from the row's own counts; every key is there and no other,
numbers are numbers, and strings are short. Nothing else in a row can be verified.
"""

import gzip
import json
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from math import isclose
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from minitx.config.fields import nearest
from minitx.config.saved import read_config
from minitx.config.schema import config_sha256
from minitx.evaluation.metrics import SENTENCE_COLUMNS, Score, bleu_from_sentences
from minitx.experiments.reports.command_line import command_line
from minitx.runs.result import Result, TestScore
from minitx.utils.checkout import CHECKOUT
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

FORMAT = 1
MAX_BYTES = 100_000  # bytes of a file; git keeps each for ever
MAX_STRING, MAX_COMMAND = 200, 1_000  # characters of a string in a result, and of the command
CURVE = ("step", "train_s", "loss", "bleu")
KEYS = {"format", "command", "result", "curve", "statistics"}
MOSES = {name for name in TestScore.__annotations__ if name.startswith("moses_")}  # all of them, or none
GZIP_HEADER = bytes.fromhex("1f8b 0800 0000 0000 02ff")  # no time of day, no name, no operating system


@dataclass(frozen=True)
class Row:
    """One published run.

    curve: `CURVE` at each validation; sentences: by test set, `metrics.SENTENCE_COLUMNS` of each sentence;
    source_words: by test set, the number of words in each source sentence.
    """

    command: str
    result: Result
    curve: list[list[float]]
    sentences: dict[str, list[list[int]]]
    source_words: dict[str, list[int]]

    @classmethod
    def parse(cls, values: Any, where: str) -> "Row":
        """Check a row read from JSON. Errors: `UserError` beginning with `where`."""
        form = values.get("format") if isinstance(values, Mapping) else None
        if form != FORMAT:
            raise UserError(f"{where}: row format {form}, this version reads {FORMAT}: publish its run again")
        if wrong := values.keys() ^ KEYS:
            raise UserError(f"{where}: a row has the keys {', '.join(sorted(KEYS))}: see {', '.join(sorted(wrong))}")
        try:
            curve, statistics = values["curve"], values["statistics"]
            row = cls(values["command"], Result.parse(values["result"], where), curve["rows"], statistics["sets"],
                      statistics["source_words"])
            if curve["columns"] != list(CURVE) or statistics["columns"] != list(SENTENCE_COLUMNS):
                raise UserError(f"{where}: the curve or the statistics have other columns than this version's")
            why = (_bad_result(row.result) or refusal(row.result) or _bad_counts(row) or _bad_command(row)
                   or _stray_text(row))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise UserError(f"{where}: not a row: {error!r}") from error
        if why:
            raise UserError(f"{where}: {why}")
        return row

    @property
    def name(self) -> str:
        """Return its system, seed and config: the name of its file without the suffix."""
        return f"{self.result.system}.{self.result.seed}.{self.result.config_sha256[:8]}"

    @property
    def sort_key(self) -> tuple[str, int, str]:
        """Return what rows are sorted by: system, seed, config."""
        return self.result.system, self.result.seed, self.result.config_sha256

    @property
    def recipe(self) -> list[str]:
        """Return the command's words but for the seed: what the seeds of a system share."""
        return [word for word in shlex.split(self.command) if not word.startswith("seed=")]

    @property
    def committed(self) -> bool:
        """Whether it was trained with committed code."""
        return self.result.git_dirty is False

    def json(self) -> str:
        """Write the result with a line a key, for people, and the rest with a line each."""
        result = json.dumps(asdict(self.result), indent=1, ensure_ascii=False, allow_nan=False)
        others = {
            "curve": {"columns": CURVE, "rows": self.curve},
            "statistics": {"columns": SENTENCE_COLUMNS, "sets": self.sentences, "source_words": self.source_words},
        }
        packed = [f'"{key}": {json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)}'
                  for key, value in others.items()]
        command = json.dumps(self.command, ensure_ascii=False)
        head = [f'"format": {FORMAT}', f'"command": {command}', f'"result": {result}']
        return "{\n" + ",\n".join([*head, *packed]) + "\n}\n"

    def file(self) -> tuple[str, bytes]:
        """Return the name and the content of the row's file, packed if it must be: the same bytes for the same row.

        Errors: `UserError` for a row that is too large even so.
        """
        content = self.json().encode()
        if len(content) <= MAX_BYTES:
            return f"{self.name}.json", content
        content = GZIP_HEADER + gzip.compress(content, mtime=0)[len(GZIP_HEADER):]  # which differs between systems
        if len(content) > MAX_BYTES:
            raise UserError(f"{self.name}: {len(content):,} bytes when packed, and a row may have {MAX_BYTES:,}: "
                            "score fewer test sets (data.test_sets)")
        return f"{self.name}.json.gz", content


def make_row(run_dir: Path) -> Row:
    """Make the row of a run directory. Errors: `UserError` for a run that cannot be published."""
    if not (run_dir / "result.json").exists():
        raise UserError(f"{run_dir}: no result.json, so nothing to publish")
    result = Result.read(run_dir / "result.json")
    if why := refusal(result):
        raise UserError(f"{run_dir}: {why}")
    return Row.parse(_row_values(run_dir, result), str(run_dir))


def unpublished_row(run_dir: Path) -> Row:
    """Make the row of a finished run as it is, whether or not it may be published.

    Errors: `UserError` where a file of it is missing, damaged, or of another version.
    """
    result = Result.read(run_dir / "result.json")
    values = _row_values(run_dir, result)
    try:
        statistics = values["statistics"]
        row = Row(values["command"], result, values["curve"]["rows"], statistics["sets"], statistics["source_words"])
        why = _bad_result(result) or _bad_counts(row)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{run_dir}: damaged: {error!r}", Exit.STORAGE) from error
    if why:
        raise UserError(f"{run_dir}: {why}")
    return row


def _row_values(run_dir: Path, result: Result) -> dict[str, Any]:
    """Return what a row of this run holds. Errors: `UserError`"""
    statistics = _load(run_dir / "sentence_statistics.json", json.loads)
    records = _load(run_dir / "metrics.jsonl", lambda text: [json.loads(line) for line in text.splitlines()])
    curve = [[record[name] for name in CURVE] for record in records if record["event"] == "valid"]
    cfg = read_config(run_dir)
    if config_sha256(cfg) != result.config_sha256:
        raise UserError(f"{run_dir}: config.yaml is not the config that result.json is of (their hashes differ)")
    return {"format": FORMAT, "command": command_line(cfg), "result": asdict(result),
            "curve": {"columns": list(CURVE), "rows": curve}, "statistics": statistics}


def refusal(result: Result) -> str | None:
    """Return why a run cannot be published, or None."""
    if result.status != "finished":
        return f"the run is {result.status}; only finished runs are published"
    if result.experiment is None:
        return "the run names no experiment, so its row would have no name: train with experiment=NAME"
    if result.init_from_sha256 is not None:
        return "it began with another run's weights (init_from); only runs that drew their own are published"
    if result.nonfinite_steps:
        return f"{result.nonfinite_steps:,} updates were not finite and were skipped; publish a run without any"
    return None


def _bad_result(result: Result) -> str | None:
    """Return what a table would miss in a result, or could not format, or None."""
    if wrong := _wrong_type(vars(result), get_type_hints(Result)):
        return wrong
    required = {"decode": {"beam_size", "length_penalty"}, "versions": {"torch", "lightning"},
                "hardware": {"cores", "gpu" if result.hardware.get("gpu") else "cpu"}}
    for name, keys in required.items():
        if missing := keys - getattr(result, name).keys():
            return f"{name} lacks {', '.join(sorted(missing))}"
    for name, score in result.test.items():
        if unknown := score.keys() - TestScore.__annotations__.keys():
            return f"{name}: unknown in a test set's scores: {', '.join(sorted(unknown))}"
        if missing := {field.name for field in fields(Score)} - score.keys():
            return f"{name}: missing in a test set's scores: {', '.join(sorted(missing))}"
        if (known := MOSES & score.keys()) and known != MOSES:
            return f"{name}: missing in a test set's scores: {', '.join(sorted(MOSES - known))}"
        if wrong := _wrong_type(score, get_type_hints(TestScore)):
            return f"{name}: {wrong}"
    return None


def _wrong_type(values: Mapping[str, Any], hints: Mapping[str, Any]) -> str | None:
    """Return a value that is not of its type, as far as JSON has types, or None."""
    for name, value in values.items():
        kinds = get_args(hints[name]) if isinstance(hints[name], UnionType) else (hints[name],)
        kinds = tuple(get_origin(kind) or kind for kind in kinds)
        if type(value) not in kinds and not (type(value) is int and float in kinds):
            return f"{name} has a wrong type: {str(value)[:40]!r}"
    return None


def _bad_counts(row: Row) -> str | None:
    """Return which score does not follow from the row's own counts, or None."""
    scores = row.result.test
    if row.sentences.keys() != scores.keys():
        return f"scores of {', '.join(scores)}, but statistics of {', '.join(row.sentences)}"
    for name, score in scores.items():
        counts = row.sentences[name]
        bleu = bleu_from_sentences(counts)
        if len(counts) != score["sentences"] or not isclose(bleu, score["bleu"], rel_tol=0, abs_tol=1e-9):
            return (f"{name}: BLEU {score['bleu']} of {score['sentences']:,} sentences, but the statistics give {bleu} "
                    f"of {len(counts):,}")
        if [type(words) for words in row.source_words.get(name, ())] != [int] * len(counts):
            return f"{name}: source_words has not one whole number for each of its {len(counts):,} sentences"
    return None


def _bad_command(row: Row) -> str | None:
    """Return what is wrong with the command, which people copy into a shell, or None."""
    command = row.command
    if len(command) > MAX_COMMAND or not command.isprintable() or "`" in command:
        return f"the command is not one line of {MAX_COMMAND:,} characters without backticks: {command[:40]!r} ..."
    words = shlex.split(command)
    if words[:3] != ["python", "train.py", f"experiment={row.result.experiment}"]:
        return f"the command is not of experiment={row.result.experiment}: {command[:40]!r} ..."
    if shlex.join(words) != command:
        return f"the command is more than words, quoted where they need it: {command[:40]!r} ..."
    return None


def _stray_text(row: Row) -> str | None:
    """Return text that has no place in a row, such as sentences of a test set, or None."""
    if long := [text for text in _strings(asdict(row.result)) if len(text) > MAX_STRING or "\n" in text]:
        return f"text has no place in a row: {long[0][:40]!r} ..."
    if any(_strings([row.curve, row.sentences.values(), row.source_words.values()])):
        return "a curve and statistics are numbers only"
    return None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings([*value, *value.values()])
    elif isinstance(value, Iterable):
        for item in value:
            yield from _strings(item)


# --- files


def require_ledger(ledger: Path) -> None:
    """Refuse a folder that is not there, such as a misspelt one. Errors: `UserError`"""
    if not ledger.is_dir():
        folders = [path.name for path in ledger.parent.glob("*") if path.is_dir()]
        hint = nearest(ledger.name, folders) if CHECKOUT else (
            "; they come with a checkout of minitx, not with the installed package: work in one, or name a folder of "
            "your own with --ledger")
        raise UserError(f"{ledger}: no such folder of published rows{hint}")


def read_rows(ledger: Path, may_be_empty: bool = False) -> list[Row]:
    """Return the ledger's rows by system and seed. may_be_empty: as before its first row is written

    Errors: `UserError` for a folder that is missing or has no row, a file that is not a row, or two files of one row.
    """
    if not may_be_empty:
        require_ledger(ledger)
    rows = []
    for path in sorted([*ledger.glob("*.json"), *ledger.glob("*.json.gz")]):
        try:
            content = path.read_bytes()
            values = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(f"{path}: cannot be read: {error}") from error
        row = Row.parse(values, str(path))
        plain, packed = _paths(row, ledger)
        if path not in (plain, packed):
            raise UserError(f"{path}: the row in it is named {row.name}: give the file that name")
        if plain.exists() and packed.exists():
            raise UserError(f"{plain}: {packed.name} is there too, and a row has one file: delete the older")
        rows.append(row)
    if not rows and not may_be_empty:
        raise UserError(f"{ledger}: has no published rows; `minitx report RUN --ledger {ledger}` puts the first there")
    return sorted(rows, key=lambda row: row.sort_key)


def refuse_duplicates(rows: Iterable[Row]) -> None:
    """Refuse two rows of one command, of two versions: their seed would count twice. Errors: `UserError`"""
    by_command: dict[str, Row] = {}
    for row in rows:
        if (other := by_command.setdefault(row.command, row)) is not row:
            raise UserError(f"{other.name}, {row.name}: rows of one command and seed; delete the older")


def find_row(name: str, ledger: Path) -> Row:
    """Return the row of this name, or the only one that begins with it. Errors: `UserError` for none, or several."""
    rows = read_rows(ledger)
    prefix = f"{name.removesuffix('.gz').removesuffix('.json')}."
    if not (matches := [row for row in rows if f"{row.name}.".startswith(prefix)]):
        raise UserError(f"{name}: no row of {ledger}{nearest(name, [row.name for row in rows])}")
    if len(matches) > 1:
        raise UserError(f"{name}: several rows of {ledger}: {', '.join(row.name for row in matches)}")
    return matches[0]


def write_row(row: Row, ledger: Path) -> tuple[Path, bool]:
    """Write a row's file, in place of an older one if there is one. --> file, whether it replaced one"""
    name, content = row.file()
    path = ledger / name
    older = [place for place in _paths(row, ledger) if place.exists()]
    try:
        ledger.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        for place in older:
            if place != path:
                place.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}", Exit.STORAGE) from error
    return path, bool(older)


def _paths(row: Row, ledger: Path) -> tuple[Path, Path]:
    return ledger / f"{row.name}.json", ledger / f"{row.name}.json.gz"


def _load(path: Path, decode: Callable[[str], Any]) -> Any:
    """Read a file that every finished run has. Errors: `UserError` if it is missing or damaged."""
    try:
        return decode(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: missing or damaged, so its run cannot be published: "
                        f"{' '.join(str(error).split())}") from error

"""What wandb or TensorBoard shows; all of it is in metrics.jsonl and result.json as well."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from minitx.config.schema import LoggerConfig
from minitx.runs.result import Result
from minitx.utils.errors import UserError
from minitx.utils.files import write_atomically

SAMPLE = ("source", "hypothesis", "reference")


def build_logger(cfg: LoggerConfig, run_dir: Path, settings: dict[str, Any], step: int = 0) -> Logger | None:
    """Make the logger of a run that goes on after `step`; wandb stays offline unless `cfg.mode` says otherwise.

    A run keeps its id on wandb, and TensorBoard drops the steps that a resumed run repeats. Errors: `UserError` where
    TensorBoard, an extra, is not installed.
    """
    if cfg.name == "wandb":
        place = run_dir.absolute()  # wandb's own process writes too, and from another folder
        return WandbLogger(project=cfg.project, save_dir=place, name=run_dir.name, mode=cfg.mode, config=settings,
                           id=wandb_id(run_dir / "wandb_id"), resume="allow")
    if cfg.name == "tensorboard":
        if find_spec("tensorboard") is None:
            raise UserError("needs the extra: pip install 'minitx[tensorboard]'")
        return TensorBoardLogger(save_dir=run_dir, name="tensorboard", version="", purge_step=step + 1)
    return None


def wandb_id(path: Path) -> str:
    """Return the run's id, drawn once and kept beside it."""
    if not path.exists():
        write_atomically(path, token_hex(8).encode())
    return path.read_text()


class LoggerGuard:
    """Pass on what happens to a logger, until it fails: then warn once and train on without it."""

    def __init__(self, logger: Logger, warn: Callable[[str], None]) -> None:
        self.logger: Logger | None = logger
        self.warn = warn

    @classmethod
    def open(cls, cfg: LoggerConfig, run_dir: Path, settings: dict[str, Any], step: int,
             warn: Callable[[str], None]) -> "LoggerGuard | None":
        """Return the logger that `cfg` names, ready to write; None where it names none, or (with a warning) fails."""
        try:
            logger = build_logger(cfg, run_dir, settings, step)
            if logger is None:
                return None
            guard = cls(logger, warn)
            getattr(logger, "experiment", None)  # opens files, or a connection: a failure shows now
        except Exception as error:  # whatever it is, it is not worth a run
            warn(f"logger={cfg.name} cannot be used ({_one_line(error)}); metrics.jsonl has all that it would show")
            return None
        return guard

    def record(self, entry: dict[str, Any]) -> None:
        """Pass on a record of metrics.jsonl."""
        self._call(lambda logger: log_record(logger, entry))

    def close(self, result: Result) -> None:
        """Pass on what came of the run, and close."""
        self._call(lambda logger: log_result(logger, result))
        self._call(lambda logger: logger.finalize("success" if result.status == "finished" else "aborted"))
        if isinstance(wandb := self.logger, WandbLogger):  # else the process's next run would be logged to this one
            self._call(lambda _: wandb.experiment.finish())

    def _call(self, what: Callable[[Logger], None]) -> None:
        if self.logger is None:
            return
        try:
            what(self.logger)
        except Exception as error:  # whatever it is, it is not worth a run
            self.warn(f"{type(self.logger).__name__} failed and is used no more ({_one_line(error)}); metrics.jsonl "
                      "has all of it")
            self.logger = None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def log_record(logger: Logger, entry: dict[str, Any]) -> None:
    """Pass a record of metrics.jsonl on: its numbers, named `event/key`, and translations to look at."""
    event, step = entry["event"], entry["step"]
    logger.log_metrics(_numbers(entry, event, but=("step",)), step=step)
    if samples := [[sample[name] for name in SAMPLE] for sample in entry.get("samples", ())]:
        _log_table(logger, f"{event}/samples", SAMPLE, samples, step)


def log_result(logger: Logger, result: Result) -> None:
    """Pass a run's numbers on: scores, utilisation, and where its time went."""
    values, step = asdict(result), result.steps
    scores = {name: number for test_set, score in result.test.items()
              for name, number in _numbers({**score}, f"test/{test_set}").items()}
    numbers = scores | _numbers(values, "result") | _numbers(result.at_target or {}, "at_target")
    if isinstance(logger, WandbLogger):
        logger.experiment.summary.update(numbers)
    else:
        logger.log_metrics(numbers, step=step)
    for name, columns, rows in (
            ("result/time_split", ("part", "seconds"), list(result.time_split.items())),
            ("result/test", ("test set", "BLEU"), [(name, score["bleu"]) for name, score in result.test.items()])):
        if rows:
            _log_table(logger, name, columns, [list(row) for row in rows], step, bars=True)


def _numbers(values: dict[str, Any], prefix: str, but: tuple[str, ...] = ()) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and name not in but}


def _log_table(logger: Logger, name: str, columns: Sequence[str], rows: list[list[Any]], step: int,
               bars: bool = False) -> None:
    """Show rows as the logger shows tables; bars: as a plot too, of the second column by the first."""
    if isinstance(logger, WandbLogger):
        import wandb

        table = wandb.Table(columns=list(columns), data=rows)
        plot = {f"{name}_plot": wandb.plot.bar(table, columns[0], columns[1], title=name)} if bars else {}
        logger.experiment.log({name: table, **plot, "trainer/global_step": step})
    elif isinstance(logger, TensorBoardLogger):
        lines = [columns, ["---"] * len(columns), *rows]
        text = "\n".join(f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in line)} |" for line in lines)
        logger.experiment.add_text(name, text, step)

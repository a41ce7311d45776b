"""What wandb and TensorBoard show: curves, translations, scores, and where the time went; all of it offline."""

import json
from pathlib import Path

import pytest
from published import write_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from minitx.config.compose import compose
from minitx.runs.result import Result
from minitx.training.loggers import LoggerGuard, build_logger, log_record, log_result

VALID = {"event": "valid", "step": 7, "train_s": 1.5, "loss": 2.0, "bleu": 12.5, "nothing": None,
         "samples": [{"source": "A | B", "hypothesis": "C", "reference": "D"}]}


@pytest.fixture
def result(tmp_path: Path) -> Result:
    write_run(tmp_path / "made", time_split={"startup": 2.0, "forward": 5.5})
    return Result.read(tmp_path / "made/result.json")


def test_tensorboard_shows_numbers_translations_and_the_result(tmp_path: Path, result: Result) -> None:
    logger = build_logger(compose(["logger=tensorboard"]).logger, tmp_path, {})
    assert logger is not None
    log_record(logger, VALID)
    log_result(logger, result)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = {name: (events.Scalars(name)[0].step, events.Scalars(name)[0].value) for name in events.Tags()["scalars"]}
    assert shown["valid/bleu"] == (7, 12.5)
    assert "valid/step" not in shown
    assert shown["test/test/bleu"] == (800, pytest.approx(result.test["test"]["bleu"]))
    assert shown["test/minimal_pairs/role_accuracy_pct"][1] == 75.0
    assert shown["result/mfu_pct"][1] == 12.5
    assert "result/git_dirty" not in shown
    texts = {name: events.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in events.Tags()["tensors"]}
    assert "| A &#124; B | C | D |" in texts["valid/samples/text_summary"]
    assert "| forward | 5.5 |" in texts["result/time_split/text_summary"]


def test_a_logger_that_fails_is_used_no_more_and_the_run_goes_on(result: Result) -> None:
    class Broken:
        def log_metrics(self, *_: object, **__: object) -> None:
            raise OSError("no server")

    warned: list[str] = []
    guard = LoggerGuard(Broken(), warned.append)  # type: ignore[arg-type]
    guard.record(VALID)
    guard.record(VALID)
    guard.close(result)
    assert warned == ["Broken failed and is used no more (no server); metrics.jsonl has all of it"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_cannot_begin_is_dropped_aloud(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a file where its folder should be")
    warned: list[str] = []
    assert LoggerGuard.open(compose([f"logger={name}"]).logger, tmp_path, {}, 0, warned.append) is None
    assert len(warned) == 1
    assert warned[0].startswith(f"logger={name} cannot be used (")
    assert warned[0].endswith("); metrics.jsonl has all that it would show")


def test_wandb_online_without_a_key_is_dropped_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    warned: list[str] = []
    cfg = compose(["logger=wandb", "logger.mode=online"]).logger
    assert LoggerGuard.open(cfg, tmp_path, {}, 0, warned.append) is None
    assert [line.partition(" (")[0] for line in warned] == ["logger=wandb cannot be used"]


def test_wandb_keeps_tables_and_a_summary_beside_the_run(tmp_path: Path, result: Result) -> None:
    logger = build_logger(compose(["logger=wandb"]).logger, tmp_path, {"seed": 1})
    assert logger is not None
    log_record(logger, VALID)
    log_result(logger, result)
    summary = dict(logger.experiment.summary)
    logger.experiment.finish()
    assert summary["test/minimal_pairs/roles_swapped_pct"] == 20.0
    assert summary["result/tgt_tokens_per_s"] == 10_396.9
    tables = {path.name.partition("_")[0] + "/" + path.parent.name: json.loads(path.read_text())
              for path in tmp_path.rglob("media/table/**/*.table.json")}
    assert ["A | B", "C", "D"] in [row for table in tables.values() for row in table["data"]]
    assert ["forward", 5.5] in [row for table in tables.values() for row in table["data"]]


def test_tensorboard_shows_a_step_that_a_resumed_run_repeats_once(tmp_path: Path) -> None:
    cfg = compose(["logger=tensorboard"]).logger
    for begun_at, steps in ((0, range(1, 9)), (5, range(6, 11))):
        logger = build_logger(cfg, tmp_path, {}, begun_at)
        assert logger is not None
        for step in steps:
            logger.log_metrics({"loss": begun_at + 1.0}, step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [*((n, 1.0) for n in range(1, 6)),
                                                               *((n, 6.0) for n in range(6, 11))]


def test_wandb_knows_a_resumed_run_by_its_id(tmp_path: Path) -> None:
    cfg = compose(["logger=wandb"]).logger
    first, again = (build_logger(cfg, tmp_path, {}) for _ in range(2))
    assert first is not None
    assert again is not None
    assert first.version == again.version == (tmp_path / "wandb_id").read_text()


def test_wandb_is_told_a_place_that_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    logger = build_logger(compose(["logger=wandb"]).logger, Path("run"), {})
    assert logger is not None
    assert logger.save_dir == str(tmp_path / "run")


def test_tensorboard_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.training.loggers.find_spec", lambda name: None)
    warned: list[str] = []
    assert LoggerGuard.open(compose(["logger=tensorboard"]).logger, tmp_path, {}, 0, warned.append) is None
    assert warned == ["logger=tensorboard cannot be used (needs the extra: pip install 'minitx[tensorboard]'); "
                      "metrics.jsonl has all that it would show"]

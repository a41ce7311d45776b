"""result.json: all of a run that is worth a number, in one typed record; its schema is this class.

What a key means stands beside its type; the site's page of result.json is made from both.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from minitx.utils.errors import UserError

STATUSES = ("finished", "interrupted", "terminated", "diverged")
DISTURBED_PCT = 5.0
SEARCH = ("beam_size", "length_penalty", "precision")  # the keys of the config's decode that a row tells
LENGTH_BOUNDS = ("max_length_ratio", "max_length_extra")  # it tells these too, where they are not the config's


class TestScore(TypedDict):
    """Score one test set; signatures are sacreBLEU's own; in `moses_signature` the tokenizer is `moses`'s."""

    bleu: Annotated[float, "corpus BLEU of detokenised, cased text, 0 to 100"]
    bleu_signature: Annotated[str, "sacreBLEU's signature of it"]
    chrf: Annotated[float, "corpus chrF, 0 to 100"]
    chrf_signature: Annotated[str, "sacreBLEU's signature of it"]
    sentences: Annotated[int, "sentences of the test set"]
    role_accuracy_pct: NotRequired[Annotated[float, "embedded text: sentences of minimal pairs that tell who did what "
                                                    "as the reference does"]]
    roles_swapped_pct: NotRequired[Annotated[float, "embedded text: sentences that tell exactly the opposite"]]
    phenomena_bleu: NotRequired[Annotated[dict[str, float], "embedded text: BLEU of the sentences that have a certain "
                                                            "construction, by its name"]]
    moses_bleu: NotRequired[Annotated[float, "BLEU of lower-cased, Moses-tokenised text, as older papers give it, "
                                             "where Moses knows the language"]]
    moses_signature: NotRequired[Annotated[str, "sacreBLEU's signature of it"]]
    moses_reference_tokens: NotRequired[Annotated[int, "tokens of the references, cut that way"]]
    dictionary_bleu: NotRequired[Annotated[float, "embedded text: BLEU of a word-for-word dictionary"]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Record a run. Times are in seconds of wall clock; tokens are non-padding target tokens, EOS included."""

    status: Annotated[str, "finished, interrupted, terminated or diverged"]
    stop_reason: Annotated[str, "the limit or signal that ended it"]
    experiment: Annotated[str | None, "option of the group experiment; null = none was chosen"]
    model: Annotated[str, "option of the group model"]
    data: Annotated[str, "option of the group data"]
    src: Annotated[str, "source language"]
    tgt: Annotated[str, "target language"]
    seed: Annotated[int, "seed of weights, order and dropout"]
    world_size: Annotated[int, "ranks that trained together"]
    device: Annotated[str, "cpu, cuda or mps"]
    precision: Annotated[str, "number format, after `auto` was decided"]
    threads: Annotated[int, "CPU threads of a rank"]
    params: Annotated[int, "trained numbers"]
    steps: Annotated[int, "optimizer updates, those skipped as non-finite included"]
    epochs: Annotated[float, "passes over the training text"]
    tokens: Annotated[int, "target tokens trained on"]
    nonfinite_steps: Annotated[int, "updates that were skipped, since loss or gradient was not finite"]
    horizon_steps: Annotated[int | None, "step at which the decay of the learning rate ends; null = it was not fixed"]
    best_valid_bleu: Annotated[float | None, "BLEU, by greedy search on the validation subset (on the whole set where "
                                             "there is a target), of the weights that serve; a tie goes to the lower "
                                             "loss"]
    best_step: Annotated[int | None, "step of the weights that serve"]
    valid_loss: Annotated[float | None, "validation loss of the weights that serve, nats a token"]
    test: Annotated[dict[str, TestScore], "scores of each test set, by its name: see below"]
    decode: Annotated[dict[str, Any], "beam size, length penalty and precision (null = the weights' own) of the test "
                                      "scores; the bounds on lengths too, where these were not the config's"]
    train_s: Annotated[float, "seconds of updates alone"]
    eval_s: Annotated[float, "seconds of validation and test"]
    checkpoint_s: Annotated[float, "seconds of writing checkpoints"]
    wall_s: Annotated[float, "seconds of all, since the start"]
    target_bleu: Annotated[float | None, "the goal, `trainer.target_bleu`, on the whole validation set, greedy"]
    time_to_target_s: Annotated[float | None, "`train_s` at which it was reached; null = it was not, so it takes "
                                              "longer"]
    tgt_tokens_per_s: Annotated[float | None, "`tokens` / `train_s`"]
    padding_efficiency_pct: Annotated[float, "real tokens among padded positions"]
    peak_memory_gib: Annotated[float, "most memory held, by the rank that held most"]
    git_sha: Annotated[str | None, "commit of the code; null = not known"]
    git_dirty: Annotated[bool | None, "whether the code differed from that commit"]
    config_sha256: Annotated[str, "of the config, but for `run_dir`, `resume`, `debug`, `logger`, `data.dir` and the "
                                  "price of an hour"]
    data_sha256: Annotated[str, "of the text"]
    tokenizer_sha256: Annotated[str, "of the vocabulary"]
    cleaning: Annotated[dict[str, Any], "training `pairs` read and `kept`; `dropped` by reason; `overlap`: how many "
                                        "sources and pairs of each other set are in the training text"]
    init_from_sha256: Annotated[str | None, "the weights it began with, where they are another run's; null = drawn "
                                            "from the seed"]
    versions: Annotated[dict[str, str], "of Python and the packages that matter"]
    hardware: Annotated[dict[str, Any], "processor, cores, memory, GPU"]
    environment: Annotated[dict[str, str], "variables that change speed"]
    mfu_pct: Annotated[float | None, "model FLOP/s utilisation: operations on real tokens over what the device could "
                                     "have done in `train_s`"]
    peak_tflops: Annotated[float | None, "what the device could do, TFLOP/s"]
    peak_source: Annotated[str | None, "where that is from: a data sheet, or measured"]
    busy_pct: Annotated[float | None, "busy share of the cores, or of the GPU, while it trained"]
    other_cpu_pct: Annotated[float | None, "share of the cores that other processes took meanwhile; above 5 % the row "
                                           "is marked as disturbed"]
    energy_wh: Annotated[float | None, "energy that the GPU took while it trained"]
    gpu_memory_gib: Annotated[float | None, "most memory of the GPU in use"]
    time_split: Annotated[dict[str, float], "seconds by `startup`, `data`, `forward`, `backward`, `optimizer`, "
                                            "`evaluation`, `checkpoint`, `other`"]
    not_measured: Annotated[dict[str, str], "why a figure is null, by its name"]
    device_hours: Annotated[float | None, "`wall_s` of every rank's device, in hours"]
    cost: Annotated[float | None, "`device_hours` times `trainer.price_per_hour`; null = no price was given"]
    at_target: Annotated[dict[str, float | None] | None, "what had been spent when the target was reached: `steps`, "
                                                         "`tokens`, `train_s`, `wall_s`, `device_hours`, `energy_wh`, "
                                                         "`cost`"]
    averaged_steps: Annotated[list[int] | None, "checkpoints whose mean serves (`checkpoint.average`); null = the "
                                                "weights of `best_step` do"]

    @property
    def system(self) -> str:
        """Name what was trained; its seeds share the name."""
        return system_name(self.experiment, self.model)

    @property
    def disturbed(self) -> bool:
        """Tell whether others took more of the cores, while it trained, than its times bear."""
        return disturbance(self.other_cpu_pct) is not None

    def json(self) -> str:
        """Return the text of result.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read and check a result. Errors: `UserError` naming the file and what is wrong."""
        try:
            return cls.parse(json.loads(path.read_text(encoding="utf-8")), str(path))
        except ValueError as error:
            raise UserError(f"{path}: not JSON: {error}") from error

    @classmethod
    def parse(cls, values: Any, where: str) -> "Result":
        """Check a mapping: its keys are the fields, all of them. Errors: `UserError` beginning with `where`."""
        if not isinstance(values, Mapping):
            raise UserError(f"{where}: holds no result, a mapping of keys")
        names = {f.name for f in fields(cls)}
        wrong = {"missing": names - values.keys(), "unknown": values.keys() - names}
        if any(wrong.values()):
            which = "; ".join(f"{how} {', '.join(sorted(keys))}" for how, keys in wrong.items() if keys)
            raise UserError(f"{where}: not a result of this version: {which}")
        if values["status"] not in STATUSES:
            raise UserError(f"{where}: status {values['status']!r} is none of {', '.join(STATUSES)}")
        return cls(**values)


def disturbance(other_cpu_pct: float | None) -> str | None:
    """Say how much of the cores other processes took; None if no more than times bear, or if it is not known."""
    if other_cpu_pct is None or other_cpu_pct <= DISTURBED_PCT:
        return None
    return f"other processes took {other_cpu_pct:.0f} % of the cores"


def system_name(experiment: str | None, model: str) -> str:
    """Name a system by its experiment and, where that does not end with it, its model."""
    if experiment is None:
        return model
    return experiment if experiment.endswith(f"_{model}") else f"{experiment}.{model}"


def searched(decode: Mapping[str, Any]) -> str:
    """Say how test sets were searched. decode: a result's"""
    words = f"beam {decode['beam_size']}, length penalty {decode['length_penalty']}"
    if "max_length_ratio" in decode:
        words += f", outputs of up to {decode['max_length_ratio']:g} times the source's tokens"
    return words if decode.get("precision") is None else f"{words}, {decode['precision']}"

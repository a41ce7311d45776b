"""What a run has done so far: all that a checkpoint holds besides tensors."""

from dataclasses import asdict, dataclass, field, fields
from math import inf
from typing import Any


@dataclass
class RunState:
    """Count a run's progress. `step` counts planned updates, those that were skipped included."""

    epoch: int = 0
    update: int = 0  # updates of this epoch that are done: with `epoch`, the position in the plan
    step: int = 0
    tokens: int = 0  # non-padding target tokens trained on, EOS included
    positions: int = 0  # rows that were computed for them, filler included
    flop: float | None = 0.0  # operations on real tokens, forwards and backwards; None = the model does not count them
    nonfinite: int = 0  # updates skipped
    min_micro_batches: int = 1  # of an update: as many as the most ranks that have trained it so far
    overflows: int = 0  # updates skipped since a gradient did not fit fp16, which is part of its use
    loss_scale: float | None = None  # by which the loss is multiplied for fp16's sake; None = it is not
    fitting: int = 0  # updates since it last changed
    git_sha: str | None = None  # the code that trains it
    git_dirty: bool | None = None  # whether that is not, all of it, this one commit
    startup_s: float = 0.0
    train_s: float = 0.0
    eval_s: float = 0.0
    checkpoint_s: float = 0.0
    split_s: dict[str, float] = field(default_factory=dict)  # of `train_s`: batches waited for, and each phase
    usage: dict[str, Any] | None = None  # a `profiling.utilisation.Usage`
    precision: str | None = None  # what `auto` came to, decided once
    init_from_sha256: str | None = None  # of the weights it began with, where these are another run's
    horizon_steps: int | None = None
    valid_bleu: float | None = None  # of the last validation, to be shown
    best_valid_bleu: float | None = None
    best_valid_loss: float | None = None  # of the same weights; None = not finite, or none yet
    best_step: int | None = None
    best_sha256: str | None = None  # of the model.safetensors written then
    validated_step: int | None = None
    validations_since_best: int = 0
    at_target: dict[str, float | None] | None = None  # `training.time_to_target.Spent` when the goal was reached

    def is_best(self, bleu: float, loss: float | None) -> bool:
        """Tell whether weights with these scores are better than the best so far: by BLEU, a tie by the lower loss."""
        def rank(bleu: float, loss: float | None) -> tuple[float, float]:
            return bleu, -inf if loss is None else -loss

        return self.best_valid_bleu is None or rank(bleu, loss) > rank(self.best_valid_bleu, self.best_valid_loss)

    def forget_best(self) -> None:
        """Let the best weights be chosen anew."""
        self.best_valid_bleu = self.best_valid_loss = self.best_step = self.best_sha256 = None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return asdict(self)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> "RunState":
        """Build from a checkpoint's values. Errors: KeyError where one is missing."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})

"""minitx: a small bench for training translators under equal conditions.

From Python: `compose` makes a config of the words of a command line, `train` trains it and returns a `Run`, `load`
makes a translator of a run, `evaluate` scores one on any text. Importing minitx is quick: each imports what it needs.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.runs.run import Run
from minitx.utils.checkout import own_version
from minitx.utils.files import expand_home

if TYPE_CHECKING:
    import torch

    from minitx.config.schema import Config
    from minitx.decoding.translator import Translator
    from minitx.evaluation.metrics import Score

__all__ = ["Run", "__version__", "compose", "evaluate", "load", "train"]

__version__ = own_version()


def compose(overrides: Sequence[str] = ()) -> "Config":
    """Return the checked config that the words of a command line ask for, as after train.py.

    Errors: `UserError` of one line for an unknown name or a value out of its range; TypeError for a lone string.

    >>> cfg = compose(["experiment=quick", "model=lstm_attention", "optim.lr=1e-3"])
    >>> cfg.model.attention, cfg.optim.lr, cfg.trainer.max_steps
    ('dot', 0.001, 20)
    """
    from minitx.config import compose as composing  # brings Hydra

    if isinstance(overrides, str):
        raise TypeError(f"overrides={overrides!r:.40}: is one string; pass a list of words such as ['model=lstm']")
    return composing.compose(list(overrides))


def train(config: "Config | Sequence[str]" = (), run_dir: str | PathLike[str] | None = None) -> Run:
    """Train to the end, here or in `trainer.devices` ranks, and return the run. Progress goes to standard error.

    config: a config of `compose`, or the words for one. run_dir: where the run is kept; None = as the config says, else
    a new folder below runs/. A run that diverged is returned too: see `run.result.status`.
    Errors: `UserError` for settings, text or storage that cannot be used, outside the main thread, and as one of
    several ranks. KeyboardInterrupt and SystemExit after Ctrl-C and SIGTERM, once what was learned is saved; to go on,
    call it again with `resume=auto` and this run_dir.

    >>> run = train(["experiment=quick", "trainer.max_steps=2"], run_dir="runs/first")
    >>> run.result.status, run.result.steps
    ('finished', 2)
    """
    from minitx.config.fields import text_word
    from minitx.config.schema import Config
    from minitx.training.in_process import train_in_process

    if isinstance(config, Config):
        cfg = config if run_dir is None else replace(config, run_dir=expand_home(os.fspath(run_dir)))
    else:
        words = [] if run_dir is None else [text_word("run_dir", os.fspath(run_dir))]
        cfg = compose(config if isinstance(config, str) else [*config, *words])  # a lone string is refused there
    return Run.read(train_in_process(cfg))


def load(run_dir: str | PathLike[str] | Sequence[str | PathLike[str]], device: "str | torch.device" = "cpu",
         precision: str | None = None) -> "Translator":
    """Load a run directory for translating, or what `minitx export` wrote, or a list of runs, which translate together.

    Several runs average their probabilities token by token; they need one vocabulary, not one family. The first one
    says how they search.
    device: "cpu", "cuda", "cuda:1", "mps", or "auto" (CUDA where it is); an export runs on the CPU.
    precision: "bf16-mixed" searches faster where the processor has units for it; None = as the run does.
    Errors: `UserError` if there is no such device or precision, no run with weights, or runs that do not fit together;
    TypeError for a path or a device of another type.

    >>> translations = load("runs/first").translate(["The dog sees the cat.", ""])
    >>> len(translations), translations[1]
    (2, '')
    """
    import torch  # here, not above: `import minitx` and the command line's help stay quick

    from minitx.serving import engine

    folders = [run_dir] if isinstance(run_dir, (str, PathLike)) or not isinstance(run_dir, Sequence) else run_dir
    for folder in folders:
        if not isinstance(folder, (str, PathLike)):
            raise TypeError(f"run_dir={folder!r:.40}: must be a path, not {type(folder).__name__}")
    if not folders:
        raise TypeError("run_dir=[]: must name a run")
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device={device!r:.40}: must be a string or a torch.device, not {type(device).__name__}")
    return engine.load([_path(folder) for folder in folders], str(device), precision)


def evaluate(run_dir: str | PathLike[str] | Sequence[str | PathLike[str]], src: str | PathLike[str] | Iterable[str],
             ref: str | PathLike[str] | Iterable[str], device: "str | torch.device" = "cpu", *,
             beam_size: int | None = None, length_penalty: float | None = None) -> "Score":
    """Translate `src` and score it against `ref`: BLEU and chrF of sacreBLEU, 0 to 100, with their signatures.

    run_dir, device: as of `load`. src, ref: sentences that pair one by one, or a file of them, one a line (a string is
    a path).
    beam_size, length_penalty: None = as the run.
    Errors: `UserError` as of `load`, for a file that cannot be read, and for texts that do not pair.

    >>> score = evaluate("runs/first", ["The dog sees the cat."], ["Der Hund sieht die Katze."], beam_size=1)
    >>> score.sentences, 0 <= score.bleu <= 100
    (1, True)
    """
    from minitx.data.lines import check_pairs, read_lines
    from minitx.decoding.arguments import as_lines
    from minitx.evaluation.metrics import bleu_tokenizer, score
    from minitx.serving.origin import read_origin

    sources, references = (read_lines(_path(text)) if isinstance(text, (str, PathLike)) else as_lines(text, name)
                           for name, text in (("src", src), ("ref", ref)))
    check_pairs(sources, references)
    translator = load(run_dir, device)
    origin = read_origin(_path(run_dir if isinstance(run_dir, (str, PathLike)) else run_dir[0]))
    hypotheses = translator.translate(sources, beam_size=beam_size, length_penalty=length_penalty, split="never")
    return score(hypotheses, references, bleu_tokenizer(origin.tgt, origin.bleu_tokenizer))


def _path(path: str | PathLike[str]) -> Path:
    return Path(expand_home(os.fspath(path)))

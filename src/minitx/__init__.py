"""minitx: a small bench for training translators under equal conditions."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from minitx.decoding.translator import Translator

try:
    __version__ = version("minitx")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0"


def load(run_dir: str | PathLike[str], device: "str | torch.device" = "cpu",
         precision: str | None = None) -> "Translator":
    """Load a run directory for translating. device: "cpu", "cuda", "cuda:1", "mps", or "auto" (CUDA where it is)

    precision: "bf16-mixed" searches faster where the processor has units for it; None = as the run does.
    Errors: `UserError` if there is no such device or precision, or no run with weights; TypeError for a path or a
    device of another type.
    """
    import torch  # here, not above: `import minitx` and the command line's help stay quick

    from minitx.config.schema import SEARCH_PRECISIONS
    from minitx.decoding.translator import Translator
    from minitx.runs.checkpoint import load_model
    from minitx.utils.errors import UserError

    if not isinstance(run_dir, (str, PathLike)):
        raise TypeError(f"run_dir={run_dir!r:.40}: must be a path, not {type(run_dir).__name__}")
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device={device!r:.40}: must be a string or a torch.device, not {type(device).__name__}")
    gpus = torch.cuda.device_count()
    name = str(device)
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    apple = ["mps", "mps:0"] if torch.backends.mps.is_available() else []
    if name not in ("cpu", "cpu:0", *apple, *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))):
        raise UserError(f"device={device}: PyTorch sees {gpus + bool(apple)} GPUs here; use auto, cpu, cuda[:index] "
                        "or mps")
    if precision not in (None, *SEARCH_PRECISIONS):
        raise UserError(f"precision={precision}: must be {' or '.join(SEARCH_PRECISIONS)}, or None = as the run")
    model, tokenizers, cfg = load_model(Path(run_dir), torch.device(name))
    decode = cfg.decode if precision is None else replace(cfg.decode, precision=precision)
    return Translator(model, tokenizers, decode, name)

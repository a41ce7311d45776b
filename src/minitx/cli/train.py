"""`train.py`: from the command line to one run, a sweep of runs, or one of Hydra's own commands.

Every run is composed and checked before anything is created, so a mistake is reported within a second. Hydra itself
serves `--cfg`, `--info`, completion and sweeps; each job of a sweep is a process of its own.
"""

import signal
import subprocess
import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from minitx.cli.streams import reader_may_leave
from minitx.config.compose import CONF, arguments, checked, compose_job, config_groups, hydra_app, parse_overrides
from minitx.config.fields import allowed, keys, show
from minitx.config.schema import Config, DataConfig
from minitx.data.corpus import check_text, find_text
from minitx.distributed.cluster import outer_ranks
from minitx.training.launch import launch
from minitx.training.process import tune_allocator, was_restarted
from minitx.utils.console import ignore_write_errors
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import home
from minitx.utils.tables import aligned


def main() -> NoReturn:
    """Run the command line of this process and exit with one of README's exit codes."""
    ignore_write_errors("stderr")
    try:
        code = _dispatch(sys.argv[1:])
    except UserError as error:
        if any(word.lstrip("+") == "debug=true" for word in sys.argv[1:]):
            traceback.print_exc()
        print(f"minitx: error: {error}", file=sys.stderr)
        code = error.code
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    sys.exit(code)


def _dispatch(argv: Sequence[str]) -> int:
    """Check the command line, then print, sweep or train as it asks. Returns an exit code."""
    args = arguments(argv)
    _check_flags(args)
    if args.shell_completion or args.hydra_help:
        return _run_in_hydra(args)
    with hydra_app(args) as app:
        if args.help:
            text = usage(app, compose_job(app, args, args.overrides))
            with reader_may_leave():
                print(text)
            return Exit.OK
        if args.cfg or args.info:
            compose_job(app, args, args.overrides)  # for our line about a mistake, before Hydra's
        elif args.multirun:
            _check_sweep(app, args)
        else:
            cfg = checked(compose_job(app, args, args.overrides))
            _check_text(cfg)
    if args.cfg or args.info:
        return _run_in_hydra(args)
    ignore_write_errors("stdout")  # run directories are what remains, and the exit code is theirs
    if args.multirun:
        return _run_in_hydra(args)
    home()
    tune_allocator(cfg)
    return launch(cfg)


def _check_flags(args: Namespace) -> None:
    """Refuse flags that would run code, do nothing, or run every job once per rank."""
    if args.experimental_rerun:
        raise UserError("--experimental-rerun reads a pickle, which can run code: repeat the command line instead")
    if args.resolve and not args.cfg and not args.help:
        raise UserError("--resolve: says how --cfg shows the config; add --cfg job")
    if args.multirun and outer_ranks():
        raise UserError("--multirun: each rank would run all jobs; let it start the ranks itself, with "
                        "trainer.devices, or start each job with torchrun or srun")


def _check_text(cfg: Config) -> None:
    """Refuse text that is not there. A run that goes on scores the test sets it began with, whatever lies there now.

    Errors: `UserError`. Of ranks that torchrun or srun started, the first to read the text will say so.
    """
    check_text(cfg.data)
    if not was_restarted() and not outer_ranks():
        find_text(cfg.data if cfg.resume == "never" else replace(cfg.data, test_sets=[]))


# --- sweeps and Hydra's own commands


def _check_sweep(app: Hydra, args: Namespace) -> None:
    """Check every job before the first begins. A sweeper other than Hydra's own chooses its jobs as it goes."""
    parsed = parse_overrides(app, args.overrides)
    compose_job(app, args, [line for o in parsed if o.is_hydra_override() and (line := o.input_line)])
    if any(o.key_or_group == "hydra/sweeper" for o in parsed):
        return
    jobs = BasicSweeper.split_arguments([o for o in parsed if not o.is_hydra_override()], None)[0]
    configs = [checked(compose_job(app, args, job)) for job in jobs]
    texts: list[DataConfig] = []
    for cfg in configs:
        if cfg.data not in texts:
            texts.append(cfg.data)
            _check_text(cfg)
    run_dirs = [cfg.run_dir for cfg in configs if cfg.run_dir is not None]
    if twice := [name for name in run_dirs if run_dirs.count(name) > 1]:
        raise UserError(f"run_dir={twice[0]}: shared by {run_dirs.count(twice[0])} jobs; leave it out, or name it by "
                        "what varies: run_dir='runs/${choices.model}-${seed}'")


def _run_in_hydra(args: Namespace) -> int:
    """Let Hydra serve the command; under --multirun each job is a process of its own. Returns the worst exit code."""
    version.setbase("1.3")
    codes: dict[str, int] = {}

    def job(_: DictConfig) -> None:
        overrides = list(HydraConfig.get().overrides.task)
        where = ["--config-path", args.config_path, "--config-name", args.config_name]
        where += ["--config-dir", args.config_dir] if args.config_dir else []
        script = [sys.argv[0]] if Path(sys.argv[0]).is_file() else ["-m", "minitx.cli.train"]  # stdin is read by now
        code = _child([sys.executable, *script, *where, *overrides])
        codes[" ".join(overrides)] = code
        if code in (Exit.INTERRUPTED, Exit.TERMINATED):
            sys.exit(code)

    shown = StringIO()  # Hydra takes a reader who leaves for an error
    try:
        with nullcontext() if args.multirun else redirect_stdout(shown):
            _run_hydra(args, get_args_parser(), job, args.config_path, args.config_name)
    except ValueError as error:  # flags that exclude each other
        raise UserError(str(error)) from error
    with reader_may_leave():
        print(shown.getvalue(), end="")
    for overrides, code in codes.items():
        if code:
            print(f"minitx: job failed with exit code {code}: {overrides}", file=sys.stderr)
    return max(codes.values(), default=Exit.OK)


def _child(command: list[str]) -> int:
    """Run one job, pass SIGTERM on to it, and wait until it has ended (Ctrl-C reaches it without us)."""
    child = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        code = child.wait()
    except KeyboardInterrupt:
        code = child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    return code if code >= 0 else 128 - code


# --- help

USUAL = (
    "model.size", "model.pos_encoding", "model.attention", "model.dropout", "data.dir", "data.src", "data.tgt",
    "data.seed", "data.max_tokens", "tokenizer.vocab_size", "optim.lr", "optim.schedule", "trainer.accelerator",
    "trainer.devices", "trainer.threads", "trainer.precision", "trainer.tokens_per_update", "trainer.max_steps",
    "trainer.max_minutes", "trainer.target_bleu", "checkpoint.every_n_steps", "decode.beam_size",
    "decode.length_penalty", "seed", "run_dir", "resume", "debug",
)  # fmt: skip

USAGE = """\
minitx trains a translator, and shows in numbers what each part of it is worth.

    python train.py [group=option ...] [key=value ...] [flags]

Groups and their options (* = chosen now)
{groups}

The keys used most, as they stand now (--cfg job --resolve shows all)
{keys}

Examples
    python train.py                                        the embedded text, minutes on a laptop
    python train.py model=transformer_nope                 the same without positions
    python train.py experiment=multi30k_en_de              real text, 15 minutes
    python train.py data=files data.dir=my/text data.tgt=fr
    python train.py run_dir=runs/mine resume=auto          start, or continue where it stopped
    python train.py --multirun seed=1,2,3 model=transformer,transformer_nope

Flags (Hydra's: --hydra-help; put them before or after all overrides, not between)
    -c job [--resolve]     show the config instead of running      -m    run every combination of a=1,2 b=3,4
    -i defaults-tree       show where each chapter comes from      -cd   add a folder of your own configs
    eval "$({program} -sc install=bash)"                           tab completion (also fish, zsh)"""


def usage(app: Hydra, composed: DictConfig) -> str:
    """Return the help text: groups with the first comment of each option's file, keys with their meaning and range."""
    choices: dict[str, Any] = dict(composed.hydra.runtime.choices)
    groups = config_groups(app)
    options = [(f"  {'*' if choices.get(name) == option else ' '} {name}={option}",
                _first_comment(CONF / name / f"{option}.yaml"))
               for name in sorted(groups, key=list(choices)[::-1].index)  # Hydra lists the defaults from last to first
               for option in groups[name]]
    schema = keys(Config)
    rows = [(f"{key}={show(OmegaConf.select(composed, key))}", schema[key]) for key in USUAL
            if not key.startswith("model.") or key.removeprefix("model.") in composed.model]
    docs = [(f"    {now}", spec["doc"] + allowed(spec)) for now, spec in rows]
    listed = {"groups": "\n".join(aligned(options, "<")), "keys": "\n".join(aligned(docs, "<"))}
    return USAGE.format(**listed, program=f"python {sys.argv[0]}")


def _first_comment(path: Path) -> str:
    """Return what the file of an option says of itself; nothing if it is no file of conf/."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    comments = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @")]
    return comments[0] if comments else ""


if __name__ == "__main__":
    main()

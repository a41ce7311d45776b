"""`train.py`, `minitx train`: from the command line to one run, a sweep of runs, or one of Hydra's own commands.

Every run is composed and checked before anything is created, so a mistake is reported within a second. Hydra itself
serves `--cfg`, `--info`, completion and sweeps; each job of a sweep is a process of its own.
"""

import shlex
import signal
import subprocess
import sys
import traceback
from argparse import Namespace
from collections.abc import Collection, Sequence
from contextlib import nullcontext, redirect_stdout
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
from minitx.config import saved
from minitx.config.compose import (
    arguments,
    checked,
    compose_job,
    config_groups,
    first_comment,
    hydra_app,
    parse_overrides,
)
from minitx.config.fields import allowed, keys, show, text_word
from minitx.config.schema import Config, DataConfig
from minitx.distributed.cluster import outer_ranks
from minitx.runs.directory import job_name
from minitx.runs.listing import about, table
from minitx.runs.overview import find_runs
from minitx.training.launch import launch, require_text
from minitx.training.process import tune_allocator
from minitx.utils.checkout import CONF, MINITX
from minitx.utils.console import Console, escape_unencodable, ignore_write_errors
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import ensure_home, expand_home
from minitx.utils.tables import aligned


def main() -> NoReturn:
    """Run the command line of this process and exit with one of the codes of `Exit`."""
    script = sys.argv[0]  # "-" where it came through stdin, which is read by now
    sys.exit(run(sys.argv[1:], script if Path(script).is_file() else None))


def run(argv: Sequence[str], script: str | None = None) -> int:
    """Run a command line and return one of the codes of `Exit`. script: the file that was run; None = `minitx train`"""
    ignore_write_errors("stderr")
    escape_unencodable()
    try:
        return _dispatch(argv, script)
    except UserError as error:
        if any(word.lstrip("+") == "debug=true" for word in argv):
            traceback.print_exc()
        print(f"minitx: error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _dispatch(argv: Sequence[str], script: str | None) -> int:
    """Check the command line, then print, sweep or train as it asks. Returns an exit code."""
    args = arguments(argv)
    _check_flags(args, script)
    if args.shell_completion or args.hydra_help:
        return _run_in_hydra(args, script)
    with hydra_app(args) as app:
        if args.help:
            text = usage(app, compose_job(app, args, args.overrides), script)
            with reader_may_leave():
                print(text)
            return Exit.OK
        if args.cfg or args.info:
            compose_job(app, args, args.overrides)  # for our line about a mistake, before Hydra's
        elif args.multirun:
            varying = _check_sweep(app, args)
        else:
            cfg = checked(compose_job(app, args, args.overrides))
            require_text(cfg)
    if args.cfg or args.info:
        return _run_in_hydra(args, script)
    ignore_write_errors("stdout")  # run directories are what remains, and the exit code is theirs
    if args.multirun:
        return _run_in_hydra(args, script, varying)
    ensure_home()
    tune_allocator(cfg)
    return launch(cfg)


def _check_flags(args: Namespace, script: str | None) -> None:
    """Refuse flags that would run code, do nothing, or run every job once per rank."""
    if args.experimental_rerun:
        raise UserError("--experimental-rerun reads a pickle, which can run code: repeat the command line instead")
    if args.shell_completion and script is None:
        raise UserError("--shell-completion: completes `python train.py`; `minitx train` has no completion")
    if args.resolve and not args.cfg and not args.help:
        raise UserError("--resolve: says how --cfg shows the config; add --cfg job")
    if args.multirun and outer_ranks():
        raise UserError("--multirun: each rank would run all jobs; let it start the ranks itself, with "
                        "trainer.devices, or start each job with torchrun or srun")


# --- sweeps and Hydra's own commands


def _check_sweep(app: Hydra, args: Namespace) -> frozenset[str]:
    """Check every job before the first begins, and return the keys that vary.

    A sweeper other than Hydra's own chooses its jobs as it goes.
    """
    parsed = parse_overrides(app, args.overrides)
    compose_job(app, args, [line for o in parsed if o.is_hydra_override() and (line := o.input_line)])
    varying = frozenset(o.get_key_element() for o in parsed if o.is_sweep_override())
    if any(o.key_or_group == "hydra/sweeper" for o in parsed):
        return varying
    jobs = BasicSweeper.split_arguments([o for o in parsed if not o.is_hydra_override()], None)[0]
    names = list[str]()
    texts = list[DataConfig]()
    for job in jobs:
        composed = compose_job(app, args, job)
        if composed.run_dir is None:
            composed.run_dir = _job_name(job, varying)
        cfg = checked(composed)
        if cfg.data not in texts:
            texts.append(cfg.data)
            require_text(cfg)
        names.append(str(cfg.run_dir))
    if twice := [name for name in names if names.count(name) > 1]:
        if all(o.key_or_group != "run_dir" for o in parsed):
            raise UserError(f"{twice[0]}: {names.count(twice[0])} jobs are the same; name each value once")
        raise UserError(f"run_dir={twice[0]}: shared by {names.count(twice[0])} jobs; leave it out, or name it by what "
                        "varies: run_dir='runs/${choices.model}-${seed}'")
    return varying


def _job_name(overrides: Sequence[str], varying: Collection[str]) -> str:
    """Name a job by the words that vary, or where none does by all of its words."""
    return job_name([word for word in overrides if word.partition("=")[0] in varying] or overrides)


def _run_in_hydra(args: Namespace, script: str | None, varying: Collection[str] = ()) -> int:
    """Let Hydra serve the command; under --multirun each job is a process of its own. Returns the worst exit code.

    varying: the keys that name the run directories of the jobs
    """
    version.setbase("1.3")
    codes: dict[str, int] = {}
    run_dirs: list[Path] = []
    program = (*MINITX, "train") if script is None else (script,)

    def job(composed: DictConfig) -> None:
        overrides = list(HydraConfig.get().overrides.task)
        folder = HydraConfig.get().sweep.dir
        run_dirs.append(Path(expand_home(composed.run_dir or str(Path(folder, _job_name(overrides, varying))))))
        placed = [] if composed.run_dir else [text_word("run_dir", str(run_dirs[-1]))]
        where = ["--config-path", args.config_path, "--config-name", args.config_name]
        where += ["--config-dir", args.config_dir] if args.config_dir else []
        code = _child([sys.executable, *program, *where, *overrides, *placed])
        codes[" ".join(overrides)] = code
        if code in (Exit.INTERRUPTED, Exit.TERMINATED):
            again = f"{shlex.quote(text_word('hydra.sweep.dir', folder))} resume=auto" if placed else "resume=auto"
            print(f"stopped; the same command with {again} goes on", file=sys.stderr)
            sys.exit(code)

    shown = StringIO()  # Hydra takes a reader who leaves for an error
    try:
        with nullcontext() if args.multirun else redirect_stdout(shown):
            _run_hydra(args, get_args_parser(), job, args.config_path, args.config_name)
    except ValueError as error:  # flags that exclude each other
        raise UserError(str(error)) from error
    with reader_may_leave():
        print(shown.getvalue(), end="")
        for line in _table(run_dirs):
            print(line)
    for overrides, code in codes.items():
        if code:
            print(f"minitx: job failed with exit code {code}: {overrides}", file=sys.stderr)
    return max(codes.values(), default=Exit.OK)


def _table(run_dirs: Sequence[Path]) -> list[str]:
    """Return the table of a sweep's runs; those that were refused have left no folder behind."""
    there = [run_dir for run_dir in run_dirs if (run_dir / saved.NAME).is_file()]
    runs = find_runs(there, Console())[0] if there else []
    return ["", *table(runs), "", about(runs)] if runs else []


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

    {train} [group=option ...] [key=value ...] [flags]

Groups and their options (* = chosen now)
{groups}

The keys used most, as they stand now (--cfg job --resolve shows all)
{keys}

Examples
{examples}

Flags (Hydra's: --hydra-help; put them before or after all overrides, not between)
    -c job [--resolve]     show the config instead of running      -m    run every combination of a=1,2 b=3,4
    -i defaults-tree       show where each chapter comes from      -cd   add a folder of your own configs{completion}"""
COMPLETION = """
    eval "$({program} -sc install=bash)"                           tab completion (also fish, zsh)"""
EXAMPLES = {
    "": "the embedded text, minutes on a laptop",
    "model=transformer_nope": "the same without positions",
    "experiment=multi30k_en_de": "real text, 15 minutes",
    "data=files data.dir=my/text data.tgt=fr": "",
    "run_dir=runs/mine resume=auto": "start, or continue where it stopped",
    "--multirun seed=1,2,3 model=transformer,transformer_nope": "",
}


def usage(app: Hydra, composed: DictConfig, script: str | None) -> str:
    """Return the help text: groups with the first comment of each option's file, keys with their meaning and range.

    script: which is run, as typed; None = `minitx train`
    """
    choices: dict[str, Any] = dict(composed.hydra.runtime.choices)
    groups = config_groups(app)
    options = [(f"  {'*' if choices.get(name) == option else ' '} {name}={option}",
                first_comment(CONF / name / f"{option}.yaml"))
               for name in sorted(groups, key=list(choices)[::-1].index)  # Hydra lists the defaults from last to first
               for option in groups[name]]
    schema = keys(Config)
    rows = [(f"{key}={show(OmegaConf.select(composed, key))}", schema[key]) for key in USUAL
            if not key.startswith("model.") or key.removeprefix("model.") in composed.model]
    docs = [(f"    {now}", spec["doc"] + allowed(spec)) for now, spec in rows]
    train = "minitx train" if script is None else "python train.py"
    examples = [(f"    {train} {words}".rstrip(), what) for words, what in EXAMPLES.items()]
    completion = "" if script is None else COMPLETION.format(program=f"python {script}")
    listed = {"groups": options, "keys": docs, "examples": examples}
    return USAGE.format(**{name: "\n".join(aligned(columns, "<")) for name, columns in listed.items()}, train=train,
                        completion=completion)


if __name__ == "__main__":
    main()

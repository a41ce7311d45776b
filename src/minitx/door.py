"""From the command line to a composed, checked config: a slip gets one line and the nearest valid name.

The only module that knows Hydra, whose command line stays whole. It imports no torch, so a slip is told in a second,
and nothing is created before the config is checked. Hydra's own entry prints composition errors and exits, so a run
is composed here first; Hydra then serves `--cfg`, `--info`, completion and sweeps, whose jobs are fresh processes.
"""

import os
import signal
import subprocess
import sys
import traceback
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_hydra, create_automatic_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from minitx.config import Config, ModelConfig, check
from minitx.data.sources import check_text
from minitx.errors import Exit, UserError
from minitx.launch import launch, outer_ranks, tune_allocator
from minitx.schema import allowed, keys, nearest, parse, show

CONF = Path(__file__).resolve().parents[2] / "conf"
NOT_OF_A_RUN = ("hydra", "suite")  # folders of conf/: Hydra's own, and lists of runs


def main() -> NoReturn:
    """Do what the command line asks, and leave with one of README's exit codes."""
    try:
        code = _dispatch(sys.argv[1:])
    except UserError as slip:
        if any(word.lstrip("+") == "debug=true" for word in sys.argv[1:]):
            traceback.print_exc()
        print(f"minitx: error: {slip}", file=sys.stderr)
        code = slip.code
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # the reader of --help, `head` for one, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.OK
    sys.exit(code)


def compose(overrides: Sequence[str], *, text: bool = True) -> Config:
    """Return the checked config that these words of a command line mean. text: look for its folder, too

    Errors: `UserError`, one line.
    """
    args = _arguments(overrides)
    with _hydra(args) as app:
        return _checked(_compose(app, args, args.overrides), text)


def _arguments(argv: Sequence[str]) -> Namespace:
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    args = parser.parse_args(argv)
    args.config_name = args.config_name or "train"
    args.config_path = str(Path(args.config_path or CONF).resolve())
    args.multirun |= "hydra.mode=MULTIRUN" in args.overrides
    return args


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; see python train.py --help")


def _dispatch(argv: Sequence[str]) -> int:
    args = _arguments(argv)
    if args.experimental_rerun:
        raise UserError("--experimental-rerun reads a pickle, which can run code: repeat the command line instead")
    if args.resolve and not args.cfg and not args.help:
        raise UserError("--resolve: says how --cfg shows the config; add --cfg job")
    if args.shell_completion or args.hydra_help:
        return _hand_to_hydra(args)
    if args.multirun and outer_ranks():
        raise UserError("--multirun: each rank would run all jobs; let it start the ranks itself, with "
                        "trainer.devices, or begin each job with torchrun or srun")
    with _hydra(args) as app:
        if args.help:
            print(usage(app, _compose(app, args, args.overrides)))
            return Exit.OK
        if args.multirun and not args.cfg and not args.info:
            _check_sweep(app, args)
        else:
            composed = _compose(app, args, args.overrides)
            if not args.cfg and not args.info:
                cfg = _checked(composed)
    if args.cfg or args.info or args.multirun:
        return _hand_to_hydra(args)
    tune_allocator(cfg)
    return launch(cfg)


# --- compose and check


@contextmanager
def _hydra(args: Namespace) -> Iterator[Hydra]:
    """Yield Hydra over conf/ and, before it, `--config-dir`; Hydra's errors leave as one line."""
    version.setbase("1.3")
    try:
        search = create_automatic_config_search_path(None, None, args.config_path)
        if args.config_dir:
            if not Path(args.config_dir).is_dir():
                raise UserError(f"--config-dir={args.config_dir}: no such folder")
            schema = SearchPathQuery(provider="schema")
            search.prepend("command-line", f"file://{Path(args.config_dir).resolve()}", schema)
        yield Hydra.create_main_hydra2("train", search)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        what = str(error).partition("Config search path:")[0]
        raise UserError(" ".join(what.split())) from error
    finally:
        GlobalHydra.instance().clear()


def _compose(app: Hydra, args: Namespace, overrides: Sequence[str]) -> DictConfig:
    """Compose one job, `hydra` node included, after a look at every name on the command line."""
    parsed, groups = _parse_overrides(app, overrides), _groups(app)  # once: Hydra takes 0.1 s to look around
    for override in parsed:
        _check_name(groups, override)
    _check_family(app, args, parsed)
    composed = app.compose_config(args.config_name, list(overrides), RunMode.RUN, with_log_configuration=False)
    HydraConfig.instance().set_config(composed)  # ${hydra:...} looks here
    return composed


def _checked(composed: DictConfig, text: bool = True) -> Config:
    values: dict[str, Any] = {
        str(name): OmegaConf.to_container(composed[name], resolve=True)
        if OmegaConf.is_config(composed[name]) else composed[name]
        for name in composed if name != "hydra"
    }  # fmt: skip
    experiments = [o for o in composed.hydra.overrides.task if o.startswith("experiment=[")]
    if experiments:  # Hydra notes no choice where several were chosen
        values["choices"]["experiment"] = experiments[-1].removeprefix("experiment=[").rstrip("]").replace(",", "+")
    cfg = parse(Config, values)
    check(cfg)
    if text:
        check_text(cfg.data)
    return cfg


def _parse_overrides(app: Hydra, overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create(app.config_loader).parse_overrides(list(overrides))
    except HydraException as error:
        what = " ".join(str(error).splitlines()[:2])  # the third line is a link
        raise UserError(f"{what}; write key=value, and quote what is special") from error


def _check_name(groups: Mapping[str, list[str]], override: Override) -> None:
    """Refuse an unknown key or group option, or a sweep without --multirun, in our words rather than Hydra's."""
    name, given = override.key_or_group, override.input_line or ""
    if override.is_hydra_override() or override.package is not None or override.is_delete():
        return
    if override.is_sweep_override():
        raise UserError(f"{given}: several values need --multirun; one value with commas needs quotes")
    if name not in groups:
        known = [*groups, *keys(Config)]
        if name not in known and not any(key.startswith(name + ".") for key in known):
            leaf = name.rpartition(".")[2]
            same_leaf = [key for key in known if key.rpartition(".")[2] == leaf and key.count(".") < 2]
            hint = f"; did you mean {same_leaf[0]}?" if same_leaf else nearest(name, known)
            raise UserError(f"unknown key {given.lstrip('+')}{hint}")
        return
    value = override.value()
    if isinstance(value, list) and name != "experiment":
        raise UserError(f"{given}: takes one option; to run several: --multirun {name}={','.join(map(str, value))}")
    for option in value if isinstance(value, list) else [value]:
        if option not in groups[name] and not (name == "experiment" and option is None):
            options = ", ".join(groups[name])
            raise UserError(f"{name}={show(option)}: no such option{nearest(str(option), groups[name])} ({options})")


def _check_family(app: Hydra, args: Namespace, overrides: Sequence[Override]) -> None:
    """Refuse a key that another model family has and the chosen one has not."""
    families = [{spec.name for spec in fields(member)} for member in ModelConfig.members.values()]
    shared = {f"model.{name}" for name in set.intersection(*families) - {"family"}}  # to compose once more takes time
    asked = [o for o in overrides if (key := o.key_or_group).startswith("model.") and key not in shared
             and not o.is_delete()]
    if not asked:
        return
    others = [line for o in overrides if o not in asked and (line := o.input_line)]
    chosen = app.compose_config(args.config_name, others, RunMode.RUN, with_log_configuration=False)
    option = chosen.hydra.runtime.choices.get("model")
    for override in asked:
        name = override.key_or_group.removeprefix("model.")
        if name == "family":
            raise UserError(f"{override.input_line}: comes with model={override.value()}, which also brings its keys")
        if name not in chosen.model:
            raise UserError(f"{override.input_line}: model={option} has no such key; it has "
                            f"{', '.join(key for key in chosen.model if key != 'family')}")


def _groups(app: Hydra) -> dict[str, list[str]]:
    names = [name for name in app.list_all_config_groups() if name.partition("/")[0] not in NOT_OF_A_RUN]
    return {name: app.config_loader.get_group_options(name) for name in names}


# --- sweeps and Hydra's own commands


def _check_sweep(app: Hydra, args: Namespace) -> None:
    """Check every job before the first begins; another sweeper than Hydra's own chooses its jobs as it goes."""
    parsed = _parse_overrides(app, args.overrides)
    _compose(app, args, [line for o in parsed if o.is_hydra_override() and (line := o.input_line)])
    if any(o.key_or_group == "hydra/sweeper" for o in parsed):
        return
    jobs = BasicSweeper.split_arguments([o for o in parsed if not o.is_hydra_override()], None)[0]
    run_dirs = [cfg.run_dir for cfg in (_checked(_compose(app, args, job)) for job in jobs) if cfg.run_dir is not None]
    if twice := [name for name in run_dirs if run_dirs.count(name) > 1]:
        raise UserError(f"run_dir={twice[0]}: shared by {run_dirs.count(twice[0])} jobs; leave it out, or name it by "
                        "what varies: run_dir='runs/${choices.model}-${seed}'")


def _hand_to_hydra(args: Namespace) -> int:
    """Let Hydra serve the command; under --multirun each job is a fresh process with its own exit code."""
    version.setbase("1.3")
    codes: dict[str, int] = {}

    def job(_: DictConfig) -> None:
        overrides = list(HydraConfig.get().overrides.task)
        where = ["--config-path", args.config_path, "--config-name", args.config_name]
        where += ["--config-dir", args.config_dir] if args.config_dir else []
        code = _child([sys.executable, sys.argv[0], *where, *overrides])
        codes[" ".join(overrides)] = code
        if code in (Exit.INTERRUPTED, Exit.TERMINATED):
            sys.exit(code)

    try:
        _run_hydra(args, get_args_parser(), job, args.config_path, args.config_name)
    except ValueError as error:  # flags that exclude each other
        raise UserError(str(error)) from error
    for overrides, code in codes.items():
        if code:
            print(f"minitx: job failed with exit code {code}: {overrides}", file=sys.stderr)
    return max(codes.values(), default=Exit.OK)


def _child(command: list[str]) -> int:
    """Run one job, pass SIGTERM on, and wait for its clean end (Ctrl-C reaches it by itself)."""
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
    python train.py run_dir=runs/mine resume=auto          begin, or go on where it stopped
    python train.py --multirun seed=1,2,3 model=transformer,transformer_nope

Flags (Hydra's: --hydra-help; put them before or after all overrides, not between)
    -c job [--resolve]     show the config instead of running      -m    run every combination of a=1,2 b=3,4
    -i defaults-tree       show where each chapter comes from      -cd   add a folder of your own configs
    eval "$({program} -sc install=bash)"                           tab completion (also fish, zsh)"""


def usage(app: Hydra, composed: DictConfig) -> str:
    """Return the help text: groups with what each option's file says of itself, keys with their meaning and range."""
    choices: dict[str, Any] = dict(composed.hydra.runtime.choices)
    groups = _groups(app)
    lines = []
    for name in sorted(groups, key=list(choices)[::-1].index):  # Hydra notes the defaults list from its end
        for option in groups[name]:
            star = "*" if choices.get(name) == option else " "
            lines.append(f"  {star} {name}={option}".ljust(43) + _first_comment(CONF / name / f"{option}.yaml"))
    schema = keys(Config)
    rows = [(f"{key}={show(OmegaConf.select(composed, key))}", schema[key]) for key in USUAL
            if not key.startswith("model.") or key.removeprefix("model.") in composed.model]
    docs = [f"    {now.ljust(39)}{spec['doc']}{allowed(spec)}" for now, spec in rows]
    program = f"python {sys.argv[0]}"
    return USAGE.format(groups="\n".join(lines), keys="\n".join(docs), program=program)


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    comments = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @")]
    return comments[0] if comments else ""

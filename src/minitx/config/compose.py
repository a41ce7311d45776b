"""From the command line to a composed, checked config: a slip gets one line and the nearest valid name.

Hydra's own entry prints composition errors and exits, so a config is composed here first, and no module but this one
and the command knows Hydra. It imports no torch, so that a mistake is reported within a second.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
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

from minitx.config.fields import keys, nearest, parse, show
from minitx.config.schema import Config, ModelConfig, check
from minitx.utils.errors import UserError

CONF = Path(__file__).resolve().parents[3] / "conf"
NOT_OF_A_RUN = ("hydra", "suite")  # folders of conf/: Hydra's own, and lists of runs


def compose(overrides: Sequence[str]) -> Config:
    """Return the checked config that these words of a command line mean. Errors: `UserError`, one line.

    The same words are composed once a process: a config is frozen, and conf/ reads no environment variable. Words with
    an option, such as --config-dir, may name a folder that changes, and are composed each time.
    """
    if any(word.startswith("-") for word in overrides):
        return _compose(overrides)
    return _compose_once(tuple(overrides))


def _compose(overrides: Sequence[str]) -> Config:
    args = arguments(overrides)
    with hydra_app(args) as app:
        return checked(compose_job(app, args, args.overrides))


_compose_once = cache(_compose)


def arguments(argv: Sequence[str]) -> Namespace:
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    args = parser.parse_args(argv)
    args.config_name = args.config_name or "train"
    args.config_path = str(Path(args.config_path or CONF).resolve())
    args.multirun |= "hydra.mode=MULTIRUN" in args.overrides
    return args


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; see python train.py --help")


@contextmanager
def hydra_app(args: Namespace) -> Iterator[Hydra]:
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


def compose_job(app: Hydra, args: Namespace, overrides: Sequence[str]) -> DictConfig:
    """Compose one job, `hydra` node included, after a look at every name on the command line."""
    parsed, groups = parse_overrides(app, overrides), config_groups(app)  # once: Hydra takes 0.1 s to look around
    for override in parsed:
        _check_name(groups, override)
    _check_family(app, args, parsed)
    composed = app.compose_config(args.config_name, list(overrides), RunMode.RUN, with_log_configuration=False)
    HydraConfig.instance().set_config(composed)  # ${hydra:...} looks here
    return composed


def checked(composed: DictConfig) -> Config:
    """Return the config that a composed job means. Errors: `UserError` for a value out of its range."""
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
    return cfg


def parse_overrides(app: Hydra, overrides: Sequence[str]) -> list[Override]:
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


def config_groups(app: Hydra) -> dict[str, list[str]]:
    names = [name for name in app.list_all_config_groups() if name.partition("/")[0] not in NOT_OF_A_RUN]
    return {name: app.config_loader.get_group_options(name) for name in names}

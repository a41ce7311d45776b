"""From the words of a command line to a composed, checked config; a mistake gets one line and the nearest valid name.

Hydra's own entry point prints composition errors and exits, so minitx composes the config itself. Only this module and
`cli.train` know Hydra. Neither imports torch, so that a mistake is reported within a second.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from minitx.config.fields import SYNONYMS, keys, nearest, parse, show, text_word
from minitx.config.schema import Config, ModelConfig, check
from minitx.utils.checkout import CONF, TRAIN
from minitx.utils.errors import UserError
from minitx.utils.files import expand_home

NOT_OF_A_RUN = ("hydra", "suite")  # folders of conf/: Hydra's own, and lists of runs
SWEEP_DIR = "hydra.sweep.dir"
# Keys of Hydra's that a run ignores: the values that ask for nothing, ours and Hydra's, and what to do instead.
IGNORED = {
    "hydra.run.dir": ((".", "outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}"), "name the folder of a run with run_dir"),
    "hydra.job.chdir": ((False, None), "a run stays in the folder where it was started"),
    "hydra.output_subdir": ((None, ".hydra"), "the settings of a run are in its config.yaml"),
    "hydra.mode": ((None, "RUN"), "add --multirun to the command line"),
}


def compose(overrides: Sequence[str]) -> Config:
    """Return the checked config that these words of a command line ask for. Errors: `UserError`, one line.

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
    """Parse a command line as Hydra does: its flags, and `overrides`, all other words. Errors: `UserError`"""
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    args = parser.parse_args(argv)
    args.overrides = [_with_home(_as_written(word)) for word in args.overrides]
    args.config_name = args.config_name or "train"
    args.config_path = str(Path(expand_home(args.config_path or str(CONF))).resolve())
    args.config_dir = args.config_dir and expand_home(args.config_dir)
    args.multirun |= "hydra.mode=MULTIRUN" in args.overrides
    return args


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; see {TRAIN} --help")


def _as_written(word: str) -> str:
    """Quote the values of a text key that Hydra would read as numbers, or whose characters its grammar lacks.

    So `run_dir=2024_05` is not `run_dir=202405`, and `run_dir=~/läufe` needs no quotes. Values separated by commas are
    quoted one by one, if they look like numbers; but the name of a folder that is there is one value.
    """
    name, equals, written = word.partition("=")
    if not equals or name.lstrip("+") not in _text_names():
        return word
    if "," in written and Path(written).is_dir():  # such as a run of a sweep: runs/TIME/model=lstm,seed=2
        return text_word(name, written)
    try:
        parsed: Any = OverridesParser.create().parse_override(word).value()
    except HydraException:
        is_one_text = not any(mark in written for mark in (",", "'", '"', "${"))
        return text_word(name, written) if is_one_text else word  # which is refused later
    several = isinstance(parsed, ChoiceSweep) and parsed.simple_form
    values, texts = (parsed.list, written.split(",")) if several else ([parsed], [written])
    if len(values) != len(texts):  # a quoted value has commas of its own
        return word
    quoted = [f"'{text.strip()}'" if isinstance(value, bool | int | float) else text
              for value, text in zip(values, texts, strict=True)]
    return f"{name}={','.join(quoted)}"


@cache
def _text_names() -> frozenset[str]:
    """Return the keys whose values are text, and the groups, whose values are names of files."""
    groups = {name.partition(".")[0] for name in keys(Config) if "." in name}
    texts = {name for name, spec in keys(Config).items() if spec["type"] is str}
    return frozenset({"experiment", SWEEP_DIR, *groups, *texts})


def _with_home(word: str) -> str:
    """Put the home folder in the place of ~ in the folder of a sweep, which Hydra makes itself."""
    name = word.partition("=")[0]
    if name.lstrip("+") != SWEEP_DIR:
        return word
    with suppress(HydraException):  # refused later
        folder = OverridesParser.create().parse_override(word).value()
        if isinstance(folder, str) and folder.startswith("~"):
            return text_word(name, expand_home(folder))
    return word


@contextmanager
def hydra_app(args: Namespace) -> Iterator[Hydra]:
    """Yield Hydra over conf/ and, before it, `--config-dir`; its errors become a `UserError` of one line."""
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
    """Compose one job, with its `hydra` node, once every name on the command line is known to be valid.

    Errors: `UserError` for an unknown name, and for settings of Hydra's that a run ignores.
    """
    parsed, groups = parse_overrides(app, overrides), config_groups(app)
    for override in parsed:
        _check_name(groups, override)
    composed = _composed(app, args, parsed, overrides)
    _check_hydra(composed, args.multirun)
    HydraConfig.instance().set_config(composed)  # ${hydra:...} reads it there
    return composed


def checked(composed: DictConfig) -> Config:
    """Return a composed job as a `Config`. Errors: `UserError` for a value out of its range."""
    values: dict[str, Any] = {
        str(name): OmegaConf.to_container(composed[name], resolve=True)
        if OmegaConf.is_config(composed[name]) else composed[name]
        for name in composed if name != "hydra"
    }  # fmt: skip
    experiments = [o for o in composed.hydra.overrides.task if o.startswith("experiment=[")]
    if experiments:  # Hydra records no choice if several were chosen
        values["choices"]["experiment"] = experiments[-1].removeprefix("experiment=[").rstrip("]").replace(",", "+")
    cfg = parse(Config, values)
    check(cfg)
    return cfg


def parse_overrides(app: Hydra, overrides: Sequence[str]) -> list[Override]:
    """Parse words like `key=value`. Errors: `UserError` for one that Hydra's grammar does not know."""
    try:
        return OverridesParser.create(app.config_loader).parse_overrides(list(overrides))
    except HydraException as error:
        lines = [line for line in str(error).splitlines()[:2] if line.strip(" ^")]  # the third line is a link
        what = " ".join(lines).removeprefix("LexerNoViableAltException: ")
        raise UserError(f"{what}; write key=value, and quote special characters") from error


def _check_name(groups: Mapping[str, list[str]], override: Override) -> None:
    """Refuse an unknown key or group option, or a sweep without --multirun, in our words rather than Hydra's."""
    name, given = override.key_or_group, override.input_line or ""
    if override.is_hydra_override() or override.package is not None or override.is_delete():
        return
    if override.is_sweep_override():
        raise UserError(f"{given}: several values need --multirun; one value with commas needs quotes")
    if name in groups:
        _check_options(name, given, override.value(), groups[name])
        return
    known = [*groups, *keys(Config)]
    if name not in known and not any(key.startswith(name + ".") for key in known):
        leaf = name.rpartition(".")[2]
        meant = SYNONYMS.get(leaf, leaf)
        same_leaf = [key for key in known if key.rpartition(".")[2] == meant and key.count(".") < 2]
        hint = f"; did you mean {same_leaf[0]}?" if same_leaf else nearest(name, known)
        raise UserError(f"unknown key {given.lstrip('+')}{hint}")


def _check_options(group: str, given: str, value: Any, options: list[str]) -> None:
    """Refuse a group option that does not exist, and several of a group other than `experiment`."""
    if isinstance(value, list) and group != "experiment":
        raise UserError(f"{given}: takes one option; to run several: --multirun {group}={','.join(map(str, value))}")
    for option in value if isinstance(value, list) else [value]:
        if option not in options and not (group == "experiment" and option is None):
            raise UserError(f"{group}={show(option)}: no such option{nearest(str(option), options)} "
                            f"({', '.join(options)})")


def _composed(app: Hydra, args: Namespace, parsed: Sequence[Override], overrides: Sequence[str]) -> DictConfig:
    """Compose a job whose model keys are those of its family.

    A key that a family lacks fails to compose, unless it is added, and only then is the family's own part composed to
    see: once more takes 0.1 s.
    """
    if any(o.is_add() or o.is_force_add() or o.key_or_group == "model.family" for o in parsed):
        _check_family(app, args, parsed)
    try:
        return app.compose_config(args.config_name, list(overrides), RunMode.RUN, with_log_configuration=False)
    except HydraException:
        _check_family(app, args, parsed)
        raise


def _check_family(app: Hydra, args: Namespace, overrides: Sequence[Override]) -> None:
    """Refuse a model key that only another family has."""
    families = [{spec.name for spec in fields(member)} for member in ModelConfig.members.values()]
    shared = {f"model.{name}" for name in set.intersection(*families) - {"family"}}  # needs no second composition
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


def _check_hydra(composed: DictConfig, multirun: bool) -> None:
    """Refuse settings of Hydra's that do nothing or not what they say, of the command line or of an experiment."""
    values: Any = OmegaConf.to_container(composed, resolve=False, enum_to_str=True)
    for name, (unset, instead) in IGNORED.items():
        value = reduce(getitem, name.split("."), values)
        if value not in unset and not (multirun and name == "hydra.mode"):
            raise UserError(f"{name}={show(value)}: has no effect; {instead}")
    if (folder := str(values["hydra"]["sweep"]["dir"])).startswith("~"):
        raise UserError(f"{SWEEP_DIR}={folder}: ~ is the home folder on the command line alone; write it out")


def config_groups(app: Hydra) -> dict[str, list[str]]:
    """Return the options of each group of a run.

    Hydra's own way to list them reads its settings anew for every group, which takes 0.1 s.
    """
    repository = cast(ConfigLoaderImpl, app.config_loader).repository
    found, left = dict[str, list[str]](), [""]
    while left:
        parent = left.pop()
        for name in repository.get_group_options(parent, ObjectType.GROUP):
            group = f"{parent}/{name}".lstrip("/")
            if group not in NOT_OF_A_RUN:
                found[group] = repository.get_group_options(group, ObjectType.CONFIG)
                left.append(group)
    return {name: options for name, options in sorted(found.items()) if options}


def first_comment(path: Path) -> str:
    """Return what the file of an option says of itself; nothing if it is no file of conf/."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    comments = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @")]
    return comments[0] if comments else ""

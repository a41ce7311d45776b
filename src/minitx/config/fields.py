"""How a config key is declared and checked: dataclass fields with a doc, choices and bounds.

A class with `members` stands for a family of dataclasses; the value of its key `family` chooses among them.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields, is_dataclass
from difflib import get_close_matches
from math import isfinite
from operator import ge, gt, le, lt
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from minitx.utils.errors import UserError
from minitx.utils.files import expand_home

C = TypeVar("C")
SYNONYMS = {  # what others call a key of ours, the last word of it
    "gpus": "devices", "num_gpus": "devices", "batch_size": "tokens_per_update", "epochs": "max_steps",
    "max_epochs": "max_steps", "learning_rate": "lr", "path": "dir", "layers": "num_layers", "heads": "n_heads",
}  # fmt: skip


def key(doc: str, *, unit: str = "", choices: tuple[str, ...] = (), optional: bool = False, path: bool = False,
        **bounds: float) -> Any:
    """Declare a config key: what it means, its unit if it has one, and the values it accepts (`ge`, `gt`, `le`, `lt`).

    optional: a config may lack the key, as those of runs published before it was added do. It is then null, which must
    mean what was done before, and null is left out of `config_sha256`. path: a leading ~ is the home folder.
    """
    return field(metadata={"doc": doc, "unit": unit, "choices": choices, "optional": optional, "path": path,
                           "bounds": bounds})


def parse(cls: type[C], values: Mapping[str, Any], path: str = "") -> C:
    """Build `cls` from a mapping, checking every key, type and range.

    Errors: `UserError` naming the key, the value and, for an unknown name, the nearest valid one.
    """
    cls = _member(cls, values, path)
    hints = get_type_hints(cls)
    specs = {f.name: f.metadata for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in specs]:
        raise UserError(f"unknown key {path}{unknown[0]}={show(values[unknown[0]])}{nearest(unknown[0], specs, path)}")
    if missing := [name for name, spec in specs.items() if name not in values and not spec["optional"]]:
        raise UserError(f"{path}{missing[0]} is missing: {specs[missing[0]]['doc']}")
    return cls(**{name: _value(hints[name], values.get(name), path + name, spec) for name, spec in specs.items()})


def _member(cls: type[C], values: Mapping[str, Any], path: str) -> type[C]:
    """Return the dataclass that `family` names, or `cls` itself if it stands for no family."""
    members: Mapping[str, type[C]] = getattr(cls, "members", {})
    if not members or cls in members.values():
        return cls
    name = show(values.get("family"))
    if name not in members:
        raise UserError(f"{path}family={name}: must be one of {', '.join(members)}{nearest(name, members)}")
    return members[name]


def _value(hint: Any, value: Any, path: str, spec: Mapping[str, Any]) -> Any:
    """Check a value against a type hint: a group, a list, a scalar, or null where the hint allows it."""
    kind = _without_null(hint)
    if value is None and kind is not hint:
        return None
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{path}={show(value)}: is a group of keys, not a value")
        return parse(kind, value, path + ".")  # type: ignore[arg-type]
    if get_origin(kind) is list:
        if not isinstance(value, list | tuple):
            raise UserError(f"{path}={show(value)}: must be a list, like [a,b] ({spec['doc']})")
        return [_scalar(get_args(kind)[0], item, path, spec) for item in value]
    return _scalar(kind, value, path, spec)


def _scalar(kind: Any, value: Any, path: str, spec: Mapping[str, Any]) -> Any:
    """Check one value's type, choices and bounds; a whole number will do for a float, and a path may begin with ~."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is float and not isfinite(value)):
        raise UserError(f"{path}={show(value)}: must be {_KINDS[kind]} ({spec['doc']})")
    if spec["choices"] and value not in spec["choices"]:
        raise UserError(f"{path}={value}: must be one of {', '.join(spec['choices'])}{nearest(value, spec['choices'])}")
    for sign, bound in spec["bounds"].items():
        words, holds = _BOUNDS[sign]
        if not holds(value, bound):
            raise UserError(f"{path}={show(value)}: must be {words} {bound:,} ({spec['doc']})")
    return expand_home(value) if spec["path"] else value


_KINDS = {int: "a whole number", float: "a number", bool: "true or false",
          str: "text, in quotes if it looks like a number"}
_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "ge": ("at least", ge), "gt": ("greater than", gt), "le": ("at most", le), "lt": ("less than", lt),
}  # fmt: skip


def _without_null(hint: Any) -> Any:
    """Return the type in `type | None`; any other hint is returned as it is."""
    optional = get_origin(hint) in (Union, UnionType)
    return next(arm for arm in get_args(hint) if arm is not NoneType) if optional else hint


def show(value: Any) -> str:
    """Write a value as the command line would: null, true, [a,b]."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(show, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{show(item)}' for name, item in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def text_word(name: str, text: str) -> str:
    """Write a text key as a word of the command line, in the quotes of Hydra's grammar unless the text is plain."""
    if re.fullmatch(r"[\w./+%@-]+", text, re.ASCII) and text.lower() != "null":
        return f"{name}={text}"
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: 2 * match[1] + match[2].replace("'", r"\'"), text)
    return f"{name}='{escaped}'"


def nearest(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """Suggest the valid name that `name` is most likely to mean, ready to end a message; empty if none is close.

    One that has `name`, or what we call it (`SYNONYMS`), among its words comes before one that is only spelled alike.
    """
    names, meant = list(valid), SYNONYMS.get(name, name)
    same_word = [candidate for candidate in names if meant in (candidate, *re.split(r"[._-]", candidate))]
    close = get_close_matches(meant, same_word, n=1, cutoff=0) or get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def flatten(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{path}{name}.") if isinstance(value, Mapping) else {path + name: value}
    return flat


def keys(cls: type[Any], path: str = "") -> dict[str, Mapping[str, Any]]:
    """Return every dotted key, of every member of a family: what `key` declares, its `type`, if it may be `null`."""
    found: dict[str, Mapping[str, Any]] = {}
    for member in getattr(cls, "members", {}).values() or [cls]:
        hints = get_type_hints(member)
        for spec in fields(member):
            kind, name = _without_null(hints[spec.name]), path + spec.name
            leaf = {name: {**spec.metadata, "type": kind, "null": kind is not hints[spec.name]}}
            found |= keys(kind, f"{name}.") if is_dataclass(kind) else leaf  # type: ignore[arg-type]
    return found


def allowed(spec: Mapping[str, Any]) -> str:
    """List the choices and bounds of a key, ready to follow its doc; empty if its type says all."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    values = [*spec["choices"], *(f"{signs[sign]} {bound:,}" for sign, bound in spec["bounds"].items())]
    return f" [{', '.join(values)}]" if values else ""

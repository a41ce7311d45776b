"""How a schema is written and held: dataclass fields with a doc, choices and bounds; mappings checked against them.

A class with `members` stands for a family of dataclasses: the value of its key `family` chooses among them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields, is_dataclass
from difflib import get_close_matches
from math import isfinite
from operator import ge, gt, le, lt
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from minitx.utils.errors import UserError

C = TypeVar("C")


def key(doc: str, *, choices: tuple[str, ...] = (), **bounds: float) -> Any:
    """Declare a config key: what it means, and the values it may take (`ge`, `gt`, `le`, `lt`)."""
    return field(metadata={"doc": doc, "choices": choices, "bounds": bounds})


def parse(cls: type[C], values: Mapping[str, Any], path: str = "") -> C:
    """Build `cls` from a mapping, checking every key, type and range.

    Errors: `UserError` naming the key, the value and, for an unknown name, the nearest valid one.
    """
    cls = _member(cls, values, path)
    hints = get_type_hints(cls)
    specs = {f.name: f.metadata for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in specs]:
        raise UserError(f"unknown key {path}{unknown[0]}={show(values[unknown[0]])}{nearest(unknown[0], specs, path)}")
    if missing := [name for name in specs if name not in values]:
        raise UserError(f"{path}{missing[0]} is missing: {specs[missing[0]]['doc']}")
    return cls(**{name: _value(hints[name], values[name], path + name, spec) for name, spec in specs.items()})


def _member(cls: type[C], values: Mapping[str, Any], path: str) -> type[C]:
    """Return the member of a family of dataclasses that `values` are of, or `cls` where it is no family."""
    members: Mapping[str, type[C]] = getattr(cls, "members", {})
    if not members or cls in members.values():
        return cls
    name = show(values.get("family"))
    if name not in members:
        raise UserError(f"{path}family={name}: must be one of {', '.join(members)}{nearest(name, members)}")
    return members[name]


def _value(kind: Any, value: Any, path: str, spec: Mapping[str, Any]) -> Any:
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        kind = next(arm for arm in get_args(kind) if arm is not NoneType)
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{path}={show(value)}: is a group of keys, not a value")
        return parse(kind, value, path + ".")  # type: ignore[arg-type]
    if get_origin(kind) is list:
        if not isinstance(value, list | tuple):
            raise UserError(f"{path}={show(value)}: must be a list, like [a,b] ({spec['doc']})")
        return [_value(get_args(kind)[0], item, path, spec) for item in value]
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
    return value


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "ge": ("at least", ge), "gt": ("greater than", gt), "le": ("at most", le), "lt": ("less than", lt),
}  # fmt: skip


def show(value: Any) -> str:
    """Write a value as the command line would: null, true, [a,b]."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(show, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{show(item)}' for name, item in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def nearest(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """Say which valid name was probably meant, or nothing."""
    close = get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def keys(cls: type[Any], path: str = "") -> dict[str, Mapping[str, Any]]:
    """Return every dotted key, of every member of a family, with its doc, choices and bounds."""
    found: dict[str, Mapping[str, Any]] = {}
    for member in getattr(cls, "members", {}).values() or [cls]:
        hints = get_type_hints(member)
        for spec in fields(member):
            kind, name = hints[spec.name], path + spec.name
            found |= keys(kind, f"{name}.") if is_dataclass(kind) else {name: spec.metadata}  # type: ignore[arg-type]
    return found


def allowed(spec: Mapping[str, Any]) -> str:
    """Say which values a key may take, ready to follow its doc; nothing where its type says all."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    values = [*spec["choices"], *(f"{signs[sign]} {bound:,}" for sign, bound in spec["bounds"].items())]
    return f" [{', '.join(values)}]" if values else ""

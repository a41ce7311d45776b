"""The parts of the pages that are made from the code, so that they cannot say anything else: see `PARTS`.

`<!-- make: NAME -->` and `<!-- /make -->` hold such a part, which is kept in git, so that it is read without the site,
too; this program writes all of them anew. What lies between `<!-- site: NAME -->` and `<!-- /site -->` is for readers
without the site: as it is built, another page's text takes its place.
"""

import argparse
import inspect
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

import minitx
from minitx.cli.main import COMMANDS
from minitx.config.compose import first_comment
from minitx.config.fields import flatten, keys, show
from minitx.config.schema import SIZES, Config, ModelConfig
from minitx.decoding.translator import Translation, Translator
from minitx.experiments.fits import bounds_text
from minitx.experiments.prefix_scan import Affine, hillis_steele, serial, states, trace
from minitx.experiments.selection.text import short as three_digits
from minitx.experiments.studies.scan import PREDICTIONS
from minitx.runs.result import Result, TestScore
from minitx.utils.checkout import CONF
from minitx.utils.console import duration
from minitx.utils.errors import MEANINGS, UserError
from minitx.utils.files import write_atomically
from minitx.utils.tables import markdown

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^<!-- (make|site): (\S+)(?: (\S+))? -->\n(.*?)^<!-- /\1 -->$", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"^<!-- /?(?:make|site)\b", re.MULTILINE)
PICTURE = re.compile(r"""(?:(?<= src=")|(?<= srcset="))(?:docs/)?figures/""")  # in HTML; see conf.py
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")
# Files outside docs/ that are pages of the site, or parts of one.
HOMES = {"README.md": "index.md", "ARCHITECTURE.md": "architecture.md", "CHANGELOG.md": "changelog.md",
         "CONTRIBUTING.md": "contributing.md", "benchmarks/README.md": "peers.md",
         "benchmarks/results/peers.md": "peers.md"}
KINDS = {int: "whole number", float: "number", bool: "true, false", str: "text", list: "list", dict: "mapping"}
GATE, INPUTS = Fraction(1, 2), (4, 2, 6, 0, 8, 4, 2, 6)  # of the recurrence that docs/scan.md works out
WIDTH = 84  # of a usage or a signature: as wide as the site
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def write() -> None:
    """Write each part that is kept in git anew, where it differs. Errors: as of `renew`"""
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (renewed := renew(text)) != text:
            write_atomically(page, renewed.encode())
            print(f"{page.relative_to(ROOT)}: written from the code")


def renew(text: str) -> str:
    """Return a page with its parts made anew, and its markers kept. Errors: KeyError, ValueError: as of `fill`"""
    def made(block: re.Match[str]) -> str:
        kind, name, *_ = block.groups()
        return block[0] if kind == "site" else f"<!-- make: {name} -->\n{PARTS[name]()}\n<!-- /make -->"

    return BLOCK.sub(made, checked(text))


def fill(text: str) -> str:
    """Return a page of the site: its parts in place of their markers, its links to pages of the site.

    Errors: KeyError for a part of no name, ValueError for a marker without its other half.
    """
    def part(block: re.Match[str]) -> str:
        return PARTS[block[2]](*filter(None, [block[3]]))

    return BLOCK.sub(part, relink(checked(text), DOCS))


def checked(text: str) -> str:
    """Return the text. Errors: ValueError if one of its markers has lost its other half."""
    outside = BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    if alone := MARKER.search(outside):
        line = outside[:alone.start()].count("\n") + 1
        raise ValueError(f"line {line}: {alone[0]} ...: this marker has no other half")
    return text


def relink(text: str, folder: Path) -> str:
    """Rewrite the links of a file in `folder` as they look from docs/; files that are pages get the page.

    Pictures in HTML, such as those that depend on the width of a screen, are taken from the site's static files.
    """
    def seen_from_docs(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / link[1]))
        home = HOMES.get(str(target.relative_to(ROOT)))
        return home or os.path.relpath(target, DOCS)

    return LINK.sub(seen_from_docs, PICTURE.sub("_static/", text))


def adopt(name: str) -> str:
    """Return a file from outside docs/ as a page of its own."""
    return relink((ROOT / name).read_text(encoding="utf-8"), (ROOT / name).parent)


def adopt_body(name: str) -> str:
    """Return such a file without its title, as a part of a page."""
    return adopt(name).partition("\n")[2]


# --- config keys


def groups() -> str:
    """List the options of each group with the first comment of their file."""
    chosen = default_options()
    rows = [(f"`{group}={path.stem}`{' (default)' * (chosen.get(group) == path.stem)}", cell(first_comment(path)))
            for group in (*chosen, "experiment") for path in sorted((CONF / group).glob("*.yaml"))]
    return markdown(("option", "what it is"), rows)


def config_keys() -> str:
    """List every key, its default, the values it accepts and what it means: a section a group, a table a family."""
    specs, written = keys(Config), written_defaults()
    chapters: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, spec in specs.items():
        chapters.setdefault(name.partition(".")[0] if "." in name else "the run", {})[name] = spec
    del chapters["choices"]  # set by the options that were chosen
    parts = []
    for title, chapter in chapters.items():
        parts.append(f"### {title}")
        for heading, names in families(chapter).items() if title == "model" else [("", list(chapter))]:
            values = {name: written.get((heading, name), written.get(("", name))) for name in names}
            rows = [(f"`{name}`", default(value), accepted(chapter[name]), cell(chapter[name]["doc"]))
                    for name, value in values.items()]
            parts += [f"#### {heading}"] * bool(heading) + [markdown(("key", "default", "values", "meaning"), rows)]
    return "\n\n".join(parts)


def families(chapter: Iterable[str]) -> dict[str, list[str]]:
    """Group the model's keys: those that all families have, and each family's own."""
    own = {family: {f"model.{field.name}" for field in fields(member)}
           for family, member in ModelConfig.members.items()}
    shared = set.intersection(*own.values())
    return {"every family": [name for name in chapter if name in shared],
            **{family: [name for name in chapter if name in names - shared] for family, names in own.items()}}


def default_options() -> dict[str, str]:
    """Return the groups of conf/train.yaml and the options that it chooses."""
    listed = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {name: option for entry in listed if isinstance(entry, dict) for name, option in entry.items()}
    return {name: option for name, option in chosen.items() if option is not None and not name.startswith("override")}


def written_defaults() -> dict[tuple[str, str], Any]:
    """Return the values that stand in conf/, by family ("" = of any) and key."""
    written: dict[tuple[str, str], Any] = {}
    for group, option in default_options().items():
        written |= {("", key): value for key, value in flatten(load(group, option), f"{group}.").items()}
    for family in ModelConfig.members:
        written |= {(family, key): value for key, value in flatten(load("model", family), "model.").items()}
    top = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    return written | {("", key): value for key, value in top.items() if not isinstance(value, dict | list)}


def load(group: str, option: str) -> dict[str, Any]:
    """Read an option's file, with what it takes from others."""
    values: dict[str, Any] = yaml.safe_load((CONF / group / f"{option}.yaml").read_text(encoding="utf-8"))
    bases = [name for name in values.pop("defaults", []) if name != "_self_"]
    return {key: value for base in bases for key, value in load(group, base).items()} | values


def default(value: Any) -> str:
    """Write a default; one that is taken from another key is named by it."""
    taken = re.fullmatch(r"\$\{(.*)\}", str(value))
    return f"as `{taken[1]}`" if taken else f"`{show(value)}`"


def accepted(spec: Mapping[str, Any]) -> str:
    """Write which values a key accepts, and in which unit."""
    kind = ", ".join(f"`{choice}`" for choice in spec["choices"]) or KINDS[get_origin(spec["type"]) or spec["type"]]
    bounds = " and ".join(f"{SIGNS[sign]} {bound:,}" for sign, bound in spec["bounds"].items())
    return "".join([kind, f" {bounds}" * bool(bounds), f", {spec['unit']}" * bool(spec["unit"]),
                    "; or null" * spec["null"]])


def model_sizes() -> str:
    """Write each family's widths by size."""
    parts = []
    for family, member in ModelConfig.members.items():
        names = list(member.sizes[SIZES[0]])
        rows = [(f"`{size}`", *(f"{member.sizes[size][name]:,}" for name in names)) for size in SIZES]
        parts.append(f"`{family}`:\n\n{markdown(('size', *(f'`{name}`' for name in names)), rows)}")
    return "\n\n".join(parts)


def recommended() -> str:
    """Write what each data set recommends."""
    sets = {path.stem: load("data", path.stem)["recommends"] for path in sorted((CONF / "data").glob("*.yaml"))}
    names = list(next(iter(sets.values())))
    rows = [(f"`{name}`", *(show(values[key]) for key in names)) for name, values in sets.items()]
    return markdown(("data", *(f"`{name}`" for name in names)), rows)


# --- commands


def commands() -> str:
    """Describe each command of minitx: a section a command, a table of its arguments."""
    parts = []
    for name, command in COMMANDS.items():
        parser = argparse.ArgumentParser(prog=f"minitx {name}", description=command.DESCRIPTION)
        command.configure(parser)
        parts += [f"## minitx {name}", *describe(parser)]
    return "\n\n".join(parts)


def describe(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a command's description, usage and arguments; below it those of its own commands."""
    yield cell(parser.description or "")
    yield usage(parser)
    nested = {name: inner for action in parser._actions if isinstance(action, argparse._SubParsersAction)
              for name, inner in action.choices.items()}
    rows = [argument(action) for action in parser._actions
            if action.help not in (None, argparse.SUPPRESS) and "--help" not in action.option_strings and not
            isinstance(action, argparse._SubParsersAction)]
    if rows:
        yield markdown(("argument", "meaning"), rows)
    for name, inner in nested.items():
        yield f"### {parser.prog.removeprefix('minitx ')} {name}"
        yield from describe(inner)


def usage(parser: argparse.ArgumentParser) -> str:
    """Write how a command is used, each option whole; argparse breaks lines, and each version others."""
    parser.formatter_class = partial(argparse.HelpFormatter, width=10_000)  # type: ignore[assignment]
    line = parser.format_usage().removeprefix("usage: ").strip()
    whole = re.sub(r"\[[^\[\]]*\]", lambda option: option[0].replace(" ", "\0"), line)
    lines = textwrap.wrap(whole, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(["```text", *lines, "```"]).replace("\0", " ")


def argument(action: argparse.Action) -> tuple[str, str]:
    """Write an argument as one types it, and its help."""
    value = action.metavar or action.dest.upper()
    names = [f"{name} {value}" if action.nargs != 0 else name for name in action.option_strings] or [str(value)]
    choices = f": {', '.join(f'`{choice}`' for choice in action.choices)}" if action.choices else ""
    return ", ".join(f"`{cell(name)}`" for name in names), cell(str(action.help) + choices)


def exit_codes() -> str:
    """List the exit codes and what they mean."""
    return markdown(("code", "meaning"), [(str(int(code)), meaning) for code, meaning in MEANINGS.items()])


# --- minitx pick


def picked() -> str:
    """Write each problem of pick.json with its command, what an expert said before, and what pick says."""
    rows = []
    for number, (problem, answer) in enumerate(decided_problems(), 1):
        said = f"{problem['expert']} {problem['size']}".strip()
        agree = "" if answer is None else "yes" if same_answer(problem, answer["answer"]) else "no: see below"
        rows.append((str(number), cell(problem["problem"]), f"`minitx pick {problem['words']}`",
                     f"**{said}**. {cell(problem['why'])}", pick_says(answer), agree))
    return markdown(("", "problem", "command", "an expert, beforehand", "`minitx pick`", "the same?"), rows)


def decided_problems() -> Iterator[tuple[dict[str, str], dict[str, Any] | None]]:
    """Yield each problem and what was decided; None = it was not decided yet."""
    found = json.loads((ROOT / "results" / "selection" / "problems.json").read_text(encoding="utf-8"))
    for problem in json.loads((DOCS / "pick.json").read_text(encoding="utf-8")):
        yield problem, found.get(problem["words"])


def same_answer(problem: Mapping[str, str], answer: Mapping[str, str] | None) -> bool:
    """Return whether the expert and pick name the same architecture, at the same size."""
    if answer is None:
        return problem["expert"] == "none"
    return (problem["expert"], problem["size"]) == (answer["architecture"], answer["size"])


def pick_says(found: Mapping[str, Any] | None) -> str:
    """Write an answer in a cell: what it is, its figures, and the runner-up."""
    if found is None:
        return "*not decided yet*"
    if found["answer"] is None:
        said = "**none**"
    else:
        best = found["candidates"][0]
        bleu, figures = best["quality"]["bleu"], best["figures"]
        known = "BLEU unknown" if bleu is None else f"BLEU {'' if best['quality']['measured'] else '~'}{bleu:.1f}"
        said = (f"**{candidate_says(found['answer'])}**: {known}, ~{duration(60 * best['minutes'])} of training, "
                f"{figures['train_gib']['value']:.2g} GiB, {figures['token_ms']['value']:.2g} ms a token")
    second = found["runner_up"]
    then = "" if second is None else f"; then {candidate_says(second)}"
    price = "; the trade-off is named first" if found["trade_off"] else ""
    return f"{said}{then}{price}"


def candidate_says(answer: Mapping[str, str]) -> str:
    """Write a candidate's name."""
    saving = answer.get("saving")
    return f"{answer['architecture']} {answer['size']}" + (f", {saving}" if saving else "")


def pick_changes() -> str:
    """List, for each problem of which that was looked for, what would change its answer."""
    rows = [(str(number), "; ".join(map(change_says, found["changes"])))
            for number, (_, found) in enumerate(decided_problems(), 1) if found and found["changes"]]
    return markdown(("problem", "what would change the answer"), rows)


def change_says(change: Mapping[str, Any]) -> str:
    """Write at which value of a demand the answer becomes which."""
    at = "" if change["value"] is None else f" {three_digits(change['value'])}"
    answer = change["answer"]
    becomes = "none" if answer is None else candidate_says(answer)
    return f"{change['side']} `--{change['demand'].replace('_', '-')}{at}` {becomes}"


# --- results


def record(kind: type) -> str:
    """List a record's keys with their types and meanings."""
    rows = [(f"`{name}`", *told(hint)) for name, hint in get_type_hints(kind, include_extras=True).items()]
    return markdown(("key", "type", "meaning"), [(name, json_type(hint), cell(doc)) for name, hint, doc in rows])


def told(hint: Any) -> tuple[Any, str]:
    """Take a type and its meaning apart. hint: Annotated[type, meaning], or NotRequired of that"""
    while not hasattr(hint, "__metadata__"):
        (hint,) = get_args(hint)
    return hint.__origin__, str(hint.__metadata__[0])


def json_type(hint: Any) -> str:
    """Write a type in the words of JSON."""
    if isinstance(hint, UnionType):
        return " or ".join("null" if arm is NoneType else json_type(arm) for arm in get_args(hint))
    return KINDS[get_origin(hint) or hint]


# --- the Python API


def api() -> str:
    """Describe what `import minitx` brings, and what its functions return and raise."""
    names = [name for name in vars(minitx) if name in minitx.__all__ and not name.startswith("_")]
    public = {f"minitx.{name}": getattr(minitx, name) for name in names}
    others = {value.__name__: value for value in (Translator, Translation, UserError)}
    functions_first = sorted((public | others).items(), key=lambda named: isinstance(named[1], type))
    return "\n\n".join(part for name, value in functions_first for part in described(name, value))


def described(name: str, value: Any) -> Iterator[str]:
    """Yield the section of a function or a class: how it is called, its docstring, and a section for each method."""
    yield f"### {name}"
    if is_dataclass(value) or not isinstance(value, type):
        yield called(name, value)
    yield prose(value)
    for method, member in vars(value).items() if isinstance(value, type) else ():
        function = getattr(member, "__func__", member)
        if not method.startswith("_") and inspect.isfunction(function):
            yield f"#### {name}.{method}"
            yield called(f"{name}.{method}", getattr(value, method) if function is not member else function)
            yield prose(function)


def called(name: str, function: Callable[..., Any]) -> str:
    """Write how a function is called, and what it returns."""
    known = inspect.signature(function)
    words, bare = list[str](), True
    for parameter in known.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and bare:
            words.append("*")
            bare = False
        given = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        words.append(f"{parameter.name}: {short(parameter.annotation)}{given}")
    returned = "" if isinstance(function, type) else f" -> {short(known.return_annotation)}"
    line = f"{name}({', '.join(words)}){returned}"
    if len(line) > WIDTH:
        line = "\n    ".join([f"{name}(", *(f"{word}," for word in words[:-1]), f"{words[-1]}){returned}"])
    return f"```text\n{line}\n```"


def short(annotation: Any) -> str:
    """Write a type without the modules of Python and of minitx."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:collections\.abc|os|pathlib|typing|minitx)(?:\.[a-z_]+)*\.(?=[A-Z])", "", text)


def prose(value: Any) -> str:
    """Return a docstring as Markdown: its errors a paragraph, its example a block."""
    text, _, example = (inspect.getdoc(value) or "").partition(">>> ")
    text = re.sub(r"\n+(?=Errors)", "\n\n", text.strip())
    return f"{text}\n\n```pycon\n>>> {example.strip()}\n```" if example else text


def cell(text: str) -> str:
    """Make text safe for a cell of a table, and for Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("**", "\\*\\*").replace("$", "\\$")


# --- a scan, worked out


def scan_rounds() -> str:
    """Work out a recurrence of eight steps by doubling: at each place, the steps put together after each round."""
    given = [Affine(GATE, Fraction(x)) for x in INPUTS]
    traced = trace(hillis_steele, given, Affine.then)
    rows = [(f"after round {rounds}" if rounds else "given",
             *(f"h/{Fraction(node.value.a).denominator} + {float(node.value.b):g}" for node in traced.after(rounds)))
            for rounds in range(traced.depth + 1)]
    rows.append(("one after another, $h_t$", *(f"{float(h):g}" for h in states(serial, given))))
    return markdown(("place", *(str(place) for place in range(1, 1 + len(given)))), rows)


def scan_on_gpu() -> str:
    """Write what the study `scan` predicts of a GPU."""
    return markdown(("figure", "*predicted*", "because"),
                    [(each.figure, bounds_text(each.bounds), each.because) for each in PREDICTIONS["cuda"]])


PARTS: dict[str, Callable[..., str]] = {
    "page": adopt, "body": adopt_body, "groups": groups, "config-keys": config_keys, "model-sizes": model_sizes,
    "recommended": recommended, "commands": commands, "exit-codes": exit_codes,
    "picked": picked, "pick-changes": pick_changes,
    "result": partial(record, Result), "test-scores": partial(record, TestScore), "api": api,
    "scan-rounds": scan_rounds, "scan-on-gpu": scan_on_gpu}


if __name__ == "__main__":
    write()

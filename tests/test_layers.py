"""Hold the shape of the house: a folder imports only folders below it, and heavy libraries stay where they belong.

`python tests/test_layers.py` writes the table of layers into ARCHITECTURE.md.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "minitx"
LAYERS = (  # from top to bottom: a folder imports only those below it. What each is for, its `__init__.py` says
    "cli", ".", "experiments/selection", "experiments/suites", "experiments/studies", "experiments/reports",
    "experiments/prediction", "experiments/costs", "experiments", "training", "evaluation", "serving", "export",
    "export/graphs", "decoding", "runs", "models", "distributed", "data", "data/synthetic", "config", "profiling",
    "utils",
)  # fmt: skip
ROW = {name: row for row, name in enumerate(reversed(LAYERS))}
HYDRA, LIGHTNING = {"hydra", "omegaconf"}, {"lightning", "pytorch_lightning"}
SLOW = {"torch", "datasets", "wandb", "matplotlib", *LIGHTNING}
WITH_HYDRA = {"config.compose", "cli.train"}
WITH_LIGHTNING = {"data.datamodule", "experiments.costs.dry_run", "experiments.costs.step", "experiments.costs.scaling",
                  "experiments.studies.scaling_law"}  # and all of training/
# What runs before torch is needed, so that a mistake is reported at once. A folder stands for all of its modules.
NO_TORCH = (
    "__init__", "cli", "config", "data.batching", "data.cleaning", "data.corpus", "data.files", "data.hub",
    "data.lines", "data.synthetic", "data.tokenizer", "distributed.cluster", "evaluation.attention_maps",
    "evaluation.metrics", "evaluation.moses", "evaluation.significance", "experiments.fits", "experiments.reports",
    "experiments.selection.candidates", "experiments.selection.changes", "experiments.selection.decision",
    "experiments.selection.demands", "experiments.selection.quality", "experiments.selection.recorded",
    "experiments.selection.text", "experiments.suites", "export.formats", "export.manifest", "profiling.process",
    "runs.compatibility", "runs.directory", "runs.listing", "runs.overview", "runs.result", "runs.run",
    "runs.warm_start", "serving.origin", "training.in_process", "training.launch", "training.process",
    "training.resume", "utils.checkout", "utils.console", "utils.errors", "utils.files",
)  # fmt: skip
# Commands that compose a config, to train, measure or look at a text, and what they share.
TRIES = {"cli.prepare", "cli.sample", "cli.train", "cli.doctor", "cli.estimate", "cli.bench", "cli.study",
         "cli.suite", "cli.pick"}
# What `minitx.compose` and `minitx.train` import late; `minitx.load` and `minitx.evaluate`, beside them, serve.
TRAINS = {"config.compose", "training.in_process"}


@cache
def modules() -> list[str]:
    found = [".".join(path.relative_to(SRC).with_suffix("").parts) for path in sorted(SRC.rglob("*.py"))]
    return [name for name in found if name == "__init__" or not name.endswith("__init__")]


def folder(module: str) -> str:
    if module == "__main__":  # `python -m minitx` is the command line
        return "cli"
    return module.rpartition(".")[0].replace(".", "/") or "."


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


@cache
def imports(module: str, eager: bool = False) -> frozenset[str]:
    """Return what a module imports, ours without `minitx.`; eager = only what its own import brings in."""
    tree = ast.parse((SRC / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in _walk(tree, eager):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write imports in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(_ours(name) if name.partition(".")[0] == "minitx" else name for name in found)


def _walk(tree: ast.AST, eager: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        lazy = for_types or isinstance(node, ast.FunctionDef)
        if not (eager and lazy):
            yield node
            yield from _walk(node, eager)


def _ours(name: str) -> str:
    """Name the module that `minitx.a.b.thing` lies in."""
    parts = name.split(".")[1:]
    while parts and not (SRC / Path(*parts)).with_suffix(".py").is_file():
        parts.pop()
    return ".".join(parts) or "__init__"


def libraries(module: str, seen: set[str]) -> set[str]:
    """Return the libraries that importing a module brings in, through our own modules too."""
    seen.add(module)
    found: set[str] = set()
    for name in imports(module, eager=True):
        if name not in modules():
            found.add(name.partition(".")[0])
        elif name not in seen:
            found |= libraries(name, seen)
    return found


def test_a_folder_imports_only_folders_below_it() -> None:
    assert {folder(module) for module in modules()} == set(LAYERS), "each folder has one row in LAYERS"
    above = [f"{module} -> {name}" for module in modules() for name in imports(module)
             if name in modules() and folder(name) != folder(module) and ROW[folder(name)] > ROW[folder(module)]]
    assert not above


def test_no_modules_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module):], module])
        if module not in done:
            for name in imports(module) & set(modules()):
                visit(name, (*path, module))
            done.add(module)

    for module in modules():
        visit(module, ())


def test_hydra_and_lightning_stay_where_they_belong() -> None:
    roots = {module: {name.partition(".")[0] for name in imports(module)} for module in modules()}
    assert {module for module, names in roots.items() if names & HYDRA} == WITH_HYDRA
    assert {module for module, names in roots.items()
            if names & LIGHTNING and folder(module) != "training"} == WITH_LIGHTNING
    assert not [module for module, names in roots.items() if "pytorch_lightning" in names], "lightning.pytorch only"


def test_no_torch_where_a_second_counts() -> None:
    slow = {module: found for module in modules() if within(module, NO_TORCH)
            if (found := libraries(module, set()) & SLOW)}
    assert not slow


def test_serving_needs_neither_lightning_nor_hydra() -> None:
    commands = {module for module in modules() if folder(module) == "cli"} - TRIES
    for module in ["runs.checkpoint", "decoding.translator", "decoding.scoring", "serving.engine", "__init__",
                   *sorted(commands)]:
        seen: set[str] = set()
        found = libraries(module, seen)
        trains = TRAINS if module == "__init__" else set()
        for name in imports(module) & set(modules()) - TRIES - trains:  # nor what it imports late
            found |= libraries(name, seen)
        assert not found & {*HYDRA, *LIGHTNING}, module


def test_the_top_level_is_a_table_of_contents() -> None:
    top = {path.name for path in SRC.iterdir()} - {"__pycache__", "py.typed"}
    assert {name for name in top if name.endswith(".py")} == {"__init__.py", "__main__.py"}
    assert len(top) <= 16, sorted(top)


def about(layer: str) -> str:
    text = ast.get_docstring(ast.parse((SRC / layer / "__init__.py").read_text(encoding="utf-8")))
    assert text, f"{layer}/__init__.py says in a line what the folder is for"
    return text.partition("\n")[0].rstrip(".")


def table() -> str:
    rows = [f"| `{'minitx' if name == '.' else name}` | {about(name)} |" for name in LAYERS]
    return "\n".join(["| folder | what it is for |", "|---|---|", *rows])


BLOCK = re.compile(r"(<!-- layers -->\n).*?(\n<!-- /layers -->)", re.DOTALL)


def test_architecture_shows_these_layers() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert BLOCK.sub(lambda block: block[1] + table() + block[2], text) == text, "run python tests/test_layers.py"


def test_architecture_names_files_that_are_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py)?)`", text))
    assert len(named) > 30
    assert not [name for name in sorted(named) if not (SRC / name).exists() and not (ROOT / name).exists()]


if __name__ == "__main__":
    page = ROOT / "ARCHITECTURE.md"
    page.write_text(BLOCK.sub(lambda block: block[1] + table() + block[2], page.read_text(encoding="utf-8")),
                    encoding="utf-8")

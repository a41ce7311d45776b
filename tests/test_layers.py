"""Hold the shape of the house: a module imports only lower rows, and heavy libraries stay where they belong."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "minitx"
ROWS = """
cli
commands.translate . commands.evaluate . commands.score . commands.average . commands.report . commands.compare
commands.suite . commands.attention . commands.study
commands.doctor . commands.bench
commands.streams . commands.arguments . commands.meter
__init__
suites.page
suites.summary . suites.figures
suites.suite
suites.report . suites.compare
suites.tables . suites.findings
suites.ledger . suites.study_plots
suites.repeat . suites.plots . suites.significance
studies.lengths . studies.gradients . studies.retention . studies.scaling_law
studies.lab
bench . cost . scaling . outlook
doctor
door
launch
agent . rank . probe
run . rehearsal
build . loggers
training.telemetry . training.saving . training.validation
training.callbacks
training.agreement
evaluation
training.task
training.ema
averaging . decoding.scoring . decoding.maps
rundir
decoding.translate . checkpoint
resuming . warmstart . data.module . decoding.search . models.registry
monitor.clock . monitor.provenance . monitor.peak . monitor.utilisation
data.windows
data.encoded
models.transformer . models.lstm . data.sources . training.optimizer
data.hub . models.attention . training.target
data.synthetic . data.files . data.clean . data.tokenizer . data.plan
models.base . models.layers . models.dropout . training.loss . training.schedule . training.state . training.signals
data.grammar
data.english . data.german
data.syntax . data.pools
data.lexicon
frozen . attention_maps . studies.fits
config
schema . batch . metrics . moses . result . console . team . monitor.process . monitor.speed . monitor.phases
errors . storage . autograd . sharding
"""
ROW = {name: number for number, row in enumerate(reversed(ROWS.split("\n"))) for name in row.split(" . ") if name}
HYDRA, LIGHTNING = {"hydra", "omegaconf"}, {"lightning", "pytorch_lightning"}
WITH_HYDRA = {"door"}
WITH_LIGHTNING = {"data.module", "run", "rehearsal", "bench", "build", "loggers", "scaling",
                  "studies.scaling_law"}  # and all of training/
NO_TORCH = {"config", "schema", "errors", "result", "metrics", "console", "door", "launch", "rundir", "resuming",
            "warmstart", "monitor.process", "suites.report", "suites.tables", "suites.ledger", "suites.repeat",
            "suites.plots", "suites.compare", "suites.significance", "suites.suite", "suites.summary",
            "suites.page", "suites.figures", "suites.study_plots", "suites.findings", "moses", "attention_maps",
            "studies.fits", "data.plan", "data.tokenizer", "data.sources", "data.hub", "data.files", "data.clean",
            "data.synthetic", "data.grammar", "data.english", "data.german",
            "data.syntax", "data.pools",
            "data.lexicon"}  # fmt: skip
COMMANDS = {name for name in ROW if name.startswith("commands.")}
TRIES = {"commands.doctor", "commands.bench", "commands.study", "commands.suite"}  # before there is anything to serve
SERVES = {"checkpoint", "decoding.translate", "decoding.scoring", "cli", "__init__", *COMMANDS - TRIES}


def modules() -> list[str]:
    found = [".".join(path.relative_to(SRC).with_suffix("").parts) for path in sorted(SRC.rglob("*.py"))]
    return [name for name in found if name == "__init__" or not name.endswith("__init__")]


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
        if name not in ROW:
            found.add(name.partition(".")[0])
        elif name not in seen:
            found |= libraries(name, seen)
    return found


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_lower_rows(module: str) -> None:
    assert module in ROW, f"{module} has no row: give it one here and in ARCHITECTURE.md"
    above = [name for name in imports(module) if name in ROW and ROW[name] >= ROW[module] and name != module]
    assert not above, f"{module} imports {above}, in its own row or above it"


def test_no_row_names_a_module_that_is_gone() -> None:
    assert set(ROW) == set(modules())


@pytest.mark.parametrize("module", modules())
def test_hydra_and_lightning_stay_where_they_belong(module: str) -> None:
    roots = {name.partition(".")[0] for name in imports(module)}
    assert not roots & HYDRA or module in WITH_HYDRA
    assert not roots & LIGHTNING or module in WITH_LIGHTNING or module.startswith("training.")
    assert "pytorch_lightning" not in roots, "import lightning.pytorch only"


@pytest.mark.parametrize("module", sorted(NO_TORCH | COMMANDS | {"cli"}))
def test_no_torch_where_a_second_counts(module: str) -> None:
    assert not libraries(module, set()) & {"torch", "datasets", "wandb", "matplotlib", *LIGHTNING}


@pytest.mark.parametrize("module", sorted(SERVES))
def test_serving_needs_neither_lightning_nor_hydra(module: str) -> None:
    seen: set[str] = set()
    assert not libraries(module, seen) & {*HYDRA, *LIGHTNING}
    for name in imports(module):  # nor what it imports late
        if name in ROW:
            assert not libraries(name, seen) & {*HYDRA, *LIGHTNING}


@pytest.mark.parametrize("module", modules())
def test_no_file_is_longer_than_350_lines(module: str) -> None:
    assert len((SRC / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8").splitlines()) <= 350

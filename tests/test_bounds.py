"""What we use of other packages that they promise to nobody: all of it is listed, is there, and has an upper bound.

A new version of one of these is taken on by raising its bound in pyproject.toml, and running all tests.
"""

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from typing import Any

import pytest
import torch
from toys import ROOT

SRC = ROOT / "src" / "minitx"
PRIVATE = {  # by package: what is used, and the file whose tests would fail without it
    "torch": {
        "torch.cpu._is_amx_tile_supported": "profiling/test_provenance.py",
        "torch.cpu._is_avx512_bf16_supported": "profiling/test_provenance.py",
        "torch._fused_adamw_": "profiling/test_cpu_bench.py",
        "torch._foreach_lerp": "training/test_optimizer.py",
        "torch._foreach_lerp_": "training/test_optimizer.py",
        "torch._foreach_mul_": "training/test_optimizer.py",
        "torch._foreach_add_": "training/test_optimizer.py",
        "torch._foreach_copy_": "training/test_ema.py",
        "torch._dynamo": "training/test_compilation.py",
        "torch._functorch.config": "training/test_compilation.py",
        "torch.fx.experimental._config": "training/test_compilation.py",
        "torch._softmax_backward_data": "models/test_attention.py",
        "torch.ops.mkldnn._is_mkldnn_bf16_supported": "models/test_model_layers.py",
        "torch.ops.mkldnn._linear_pointwise": "models/test_model_layers.py",
        "torch.ops.mkldnn._reorder_linear_weight": "models/test_precision.py",
        "torch._ops.OpOverload._can_decompose": "profiling/test_recorder.py",
        "torch._ops.OpOverload._schema": "profiling/test_operators.py",
        "torch._subclasses.fake_tensor.DataDependentOutputException": "profiling/test_fake_cuda.py",
        "torch._subclasses.fake_tensor.DynamicOutputShapeException": "profiling/test_fake_cuda.py",
        "torch._subclasses.fake_tensor.FakeTensor": "profiling/test_recorder.py",
        "torch._subclasses.fake_tensor.FakeTensorMode": "profiling/test_fake_cuda.py",
        "torch._subclasses.fake_tensor.unset_fake_temporarily": "profiling/test_fake_cuda.py",
        "torch.Tensor._version": "models/test_precision.py",
        "torch.UntypedStorage._cdata": "profiling/test_recorder.py",
        "torch._C._current_graph_task_id": "experiments/prediction/test_update.py",
        "torch._C._FunctionBase._input_metadata": "profiling/test_fake_cuda.py",
        "torch._C._FunctionBase._sequence_nr": "profiling/test_fake_cuda.py",
        "torch.ops.aten._scaled_dot_product_attention_math": "profiling/test_libraries.py",
        "torch.ops.aten._scaled_dot_product_flash_attention": "profiling/test_libraries.py",
        "torch.utils._python_dispatch.TorchDispatchMode": "experiments/studies/test_growth.py",
        "torch.utils._pytree.tree_leaves": "experiments/studies/test_growth.py",
    },
    "lightning": {
        "lightning.pytorch.Trainer._signal_connector": "system/test_ranks.py",
        "lightning.pytorch.loops.training_epoch_loop._TrainingEpochLoop._broadcast_sigterm_tensor":
            "system/test_ranks.py",
    },
    "hydra-core": {
        "hydra._internal.hydra.Hydra": "config/test_compose.py",
        "hydra._internal.config_loader_impl.ConfigLoaderImpl": "config/test_compose.py",
        "hydra._internal.utils.create_automatic_config_search_path": "config/test_compose.py",
        "hydra._internal.utils.get_args_parser": "cli/test_train.py",
        "hydra._internal.utils._run_hydra": "cli/test_train.py",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper": "cli/test_train.py",
    },
    "sacrebleu": {
        "sacrebleu.metrics.bleu.BLEU._extract_corpus_statistics": "evaluation/test_metrics.py",
    },
}  # fmt: skip
PROMISED = {"_asdict", "_replace", "_getframe", "_exit"}  # by Python's own documentation
NAMES = [(package, name) for package, uses in PRIVATE.items() for name in uses]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def private_uses() -> Iterator[str]:
    """Yield the last part of each name that begins with an underscore, is imported from such a module, or patched."""
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if not own and node.attr not in PROMISED:
                    yield node.attr
            elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("minitx"):
                private = any(part.startswith("_") for part in node.module.split(".")[1:])
                yield from (alias.name for alias in node.names if private or re.match("_[a-z]", alias.name))
            elif isinstance(node, ast.Constant) and re.fullmatch(r"torch\._C\._[a-z]\w*", str(node.value)):
                yield node.value.rpartition(".")[2]  # it is patched


def found(name: str) -> bool:
    """Tell whether a dotted name leads to something: a module, its, a class's, or what a class's constructor sets."""
    parts, rest = name.split("."), list[str]()
    while True:
        try:
            owner: Any = import_module(".".join(parts))
            break
        except ModuleNotFoundError:
            rest.insert(0, parts.pop())
    for part in rest[:-1]:
        owner = getattr(owner, part)
    sets = inspect.getsource(owner.__init__) if inspect.isfunction(getattr(owner, "__init__", None)) else ""
    return not rest or hasattr(owner, rest[-1]) or f"self.{rest[-1]} = " in sets


def test_every_private_use_is_listed() -> None:
    assert set(private_uses()) == {name.rpartition(".")[2] for _, name in NAMES}


@pytest.mark.parametrize(("package", "name"), NAMES, ids=[name for _, name in NAMES])
def test_what_is_listed_is_there_and_its_test_too(package: str, name: str) -> None:
    if ".mkldnn." in name and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch was built without oneDNN")
    assert found(name)
    assert (ROOT / "tests" / PRIVATE[package][name]).is_file()


def test_a_name_that_is_gone_is_missed() -> None:
    assert not found("torch.cpu._is_abacus_supported")


@pytest.mark.parametrize("package", PRIVATE)
def test_the_version_here_is_the_last_that_is_allowed(package: str) -> None:
    """The bound lies below the next release that may change such things, and above the one all is tested with."""
    [bounds] = [line.removeprefix(package) for line in PROJECT["dependencies"] if re.match(rf"{package}\b", line)]
    match = re.fullmatch(r">=([\d.]+),<(\d+)\.(\d+)", bounds)
    assert match, f"{package}{bounds}: has no upper bound"
    here = [int(part) for part in re.findall(r"\d+", version(package).partition("+")[0])]
    assert [int(part) for part in match[1].split(".")] <= here
    assert [int(match[2]), int(match[3])] == [here[0], here[1] + 1]

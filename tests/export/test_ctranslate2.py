"""A CTranslate2 model says what the run's own says, and in CTranslate2's own search."""

from itertools import product
from pathlib import Path

import ctranslate2
import pytest
import torch
from exportable import MAX_LENGTH, TIED, own_beam, own_greedy, own_log_probs, random_ids, write_drawn_run
from toys import POSITIONS

from minitx.data.tokenizer import TokenizerPair
from minitx.export.formats import FORMATS
from minitx.export.manifest import read_manifest
from minitx.export.writing import export_run
from minitx.utils.errors import UserError

Ids = list[list[int]]
QUICK = [("sinusoidal", "true", TIED), ("learned", "false", ()), ("rope", "true", ()), ("none", "false", TIED)]


class Foreign:
    """CTranslate2 alone, given and giving ids."""

    def __init__(self, folder: Path) -> None:
        pair = TokenizerPair.load(folder)
        self.src, self.tgt = pair.src.tokens, pair.tgt.tokens
        self.translator = ctranslate2.Translator(str(folder), intra_threads=1)

    def log_probs(self, sources: Ids, targets: Ids) -> torch.Tensor:
        scored = self.translator.score_batch(*([[names[i] for i in ids] for ids in side]
                                               for names, side in ((self.src, sources), (self.tgt, targets))))
        return torch.tensor([log_prob for one in scored for log_prob in one.log_probs])

    def search(self, sources: Ids, **options: float) -> Ids:
        found = self.translator.translate_batch(
            [[self.src[i] for i in ids] for ids in sources], min_decoding_length=0, max_decoding_length=MAX_LENGTH,
            suppress_sequences=[[self.tgt[0]], [self.tgt[1]]], **options)
        return [[self.tgt.index(token) for token in one.hypotheses[0]] for one in found]


def exported(folder: Path, *overrides: str, quantization: str | None = None) -> tuple[Path, Path]:
    run_dir = write_drawn_run(folder / "run", *overrides)
    export_run(run_dir, "ctranslate2", folder / "out", quantization)
    return run_dir, folder / "out"


@pytest.mark.parametrize(("pos_encoding", "pre_norm", "tied"), [
    pytest.param(*kind, marks=[] if kind in QUICK else pytest.mark.slow)
    for kind in product(POSITIONS, ("true", "false"), ((), TIED))])
def test_it_is_the_same_model(pos_encoding: str, pre_norm: str, tied: tuple[str, ...], tmp_path: Path) -> None:
    run_dir, out = exported(tmp_path, f"model.pos_encoding={pos_encoding}", f"model.pre_norm={pre_norm}",
                            "model.num_layers=2", *tied)
    foreign = Foreign(out)
    sources, targets = random_ids(len(foreign.src)), random_ids(len(foreign.tgt), seed=1)
    torch.testing.assert_close(foreign.log_probs(sources, targets), own_log_probs(run_dir, sources, targets),
                               atol=1e-4, rtol=0)
    assert foreign.search(sources, beam_size=1) == own_greedy(run_dir, sources)
    beams = zip(foreign.search(sources, beam_size=5, length_penalty=0), own_beam(run_dir, sources), strict=True)
    assert sum(theirs == own for theirs, own in beams) >= len(sources) - 1, "in ours, what has ended keeps its slot"


@pytest.mark.parametrize("quantization", FORMATS["ctranslate2"].quantizations)
def test_rounded_weights_say_nearly_the_same(quantization: str, tmp_path: Path) -> None:
    run_dir, out = exported(tmp_path, quantization=quantization)
    foreign = Foreign(out)
    sources, targets = random_ids(len(foreign.src)), random_ids(len(foreign.tgt), seed=1)
    exact, rounded = own_log_probs(run_dir, sources, targets), foreign.log_probs(sources, targets)
    assert 0 < (rounded - exact).abs().mean() < 0.1 * exact.std()
    exact_size = export_run(run_dir, "ctranslate2", tmp_path / "exact").files["model.bin"]["bytes"]
    manifest = read_manifest(out)
    assert manifest.quantization == quantization
    assert manifest.files["model.bin"]["bytes"] < 0.7 * exact_size


def test_positions_reach_as_far_as_the_run_searches(tmp_path: Path) -> None:
    _, out = exported(tmp_path, "decode.max_source_length=40", "decode.max_length_ratio=2")
    assert read_manifest(out).max_target_length == 2 * 40 + 5
    learned = export_run(write_drawn_run(tmp_path / "learned", "model.pos_encoding=learned"), "ctranslate2",
                         tmp_path / "learned.out")
    assert (learned.max_source_length, learned.max_target_length) == (1024, 1023)
    rotary = export_run(write_drawn_run(tmp_path / "rope", "model.pos_encoding=rope"), "ctranslate2",
                        tmp_path / "rope.out")
    assert rotary.max_source_length is None


@pytest.mark.parametrize(("override", "why"), [
    ("model=lstm", "model.family is lstm; use --to onnx"), ("model.window=2", "model.window=2.*use --to onnx")])
def test_what_it_cannot_hold_is_refused(override: str, why: str, tmp_path: Path) -> None:
    run_dir = write_drawn_run(tmp_path / "run", override)
    with pytest.raises(UserError, match=f"--to ctranslate2: .*{why}"):
        export_run(run_dir, "ctranslate2", tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""What transformers reads of an exported folder says what the run says, with the same ids of the same text."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from exportable import MAX_LENGTH, TIED, own_beam, own_greedy, own_log_probs, random_ids, write_drawn_run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minitx.data.tokenizer import Tokenizer, TokenizerPair
from minitx.export.manifest import read_manifest
from minitx.export.writing import export_run
from minitx.utils.errors import UserError

Ids = list[list[int]]
KINDS = [("sinusoidal", "true"), ("sinusoidal", "false"), ("learned", "true"), ("none", "true")]


def exported(folder: Path, *overrides: str) -> tuple[Path, Path]:
    run_dir = write_drawn_run(folder / "run", *TIED, *overrides)
    export_run(run_dir, "huggingface", folder / "out")
    return run_dir, folder / "out"


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


@torch.no_grad()
def log_probs(model: Any, sources: Ids, targets: Ids) -> torch.Tensor:
    found = []
    for source, target in zip(sources, targets, strict=True):
        logits = model(input_ids=torch.tensor([[*source, 2]]), decoder_input_ids=torch.tensor([[1, *target]])).logits
        found.append(logits[0].log_softmax(-1).gather(1, torch.tensor([*target, 2])[:, None])[:, 0])
    return torch.cat(found)


def search(model: Any, sources: Ids, **options: Any) -> Ids:
    """All at once, so that padding is there and has to be masked."""
    longest = max(map(len, sources)) + 1
    rows = [[*source, 2] + [0] * (longest - 1 - len(source)) for source in sources]
    outputs = model.generate(input_ids=torch.tensor(rows), attention_mask=(torch.tensor(rows) != 0).long(),
                             max_length=MAX_LENGTH + 1, **options)
    return [[id_ for id_ in row[1:] if id_ not in (0, 2)] for row in outputs.tolist()]


@pytest.mark.parametrize(("pos_encoding", "pre_norm"), KINDS)
def test_it_is_the_same_model_and_stays_so_when_it_is_saved_again(pos_encoding: str, pre_norm: str,
                                                                  tmp_path: Path) -> None:
    run_dir, out = exported(tmp_path, f"model.pos_encoding={pos_encoding}", f"model.pre_norm={pre_norm}",
                            "model.num_layers=2")
    model = loaded(out)
    assert type(model).__name__ == ("PegasusForConditionalGeneration" if pre_norm == "true" else "MarianMTModel")
    sources, targets = (random_ids(model.config.vocab_size, seed) for seed in (0, 1))
    own = own_log_probs(run_dir, sources, targets)
    torch.testing.assert_close(log_probs(model, sources, targets), own, atol=1e-4, rtol=0)
    assert search(model, sources, num_beams=1) == own_greedy(run_dir, sources)
    assert search(model, sources, num_beams=5, length_penalty=0.0) == own_beam(run_dir, sources)
    model.save_pretrained(tmp_path / "again")
    torch.testing.assert_close(log_probs(loaded(tmp_path / "again"), sources, targets), own, atol=1e-4, rtol=0)


def test_search_is_as_the_run_has_it_and_ends(tmp_path: Path) -> None:
    _, out = exported(tmp_path, "decode.beam_size=3", "decode.length_penalty=0.5", "decode.max_source_length=40")
    generation = loaded(out).generation_config
    assert (generation.num_beams, generation.length_penalty) == (3, 0.5)
    assert generation.max_length == read_manifest(out).max_target_length == 40
    assert generation.suppress_tokens == [0, 1]
    assert generation.forced_eos_token_id is None


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    run_dir, out = exported(tmp_path_factory.mktemp("tokenizers"))
    return TokenizerPair.load(run_dir).src, transformers.AutoTokenizer.from_pretrained(out)


@settings(deadline=None)
@given(st.text())
@example("")
@example(" ")
@example("  two spaces, then the end  ")
@example("</s> is no end, <s> no beginning<pad>")
@example("Größe 漢字\t\r\n\u2028")
def test_the_tokenizers_agree_on_any_text(both: tuple[Tokenizer, Any], text: str) -> None:
    own, theirs = both
    ids = theirs(text)["input_ids"]
    assert ids == [*own.encode(text), Tokenizer.eos_id]
    assert theirs.decode(ids, skip_special_tokens=True) == own.decode(ids) == text
    assert theirs(text_target=text)["input_ids"] == ids


@pytest.mark.parametrize(("overrides", "why"), [
    (("model=lstm",), "model.family is lstm; use --to onnx"),
    (("model.window=2",), "window.*use --to onnx"),
    (("model.pos_encoding=rope",), "no rotary positions.*use --to ctranslate2"),
    (("model.pos_encoding=learned", "model.pre_norm=false"), "post-norm.*use --to ctranslate2"),
    (("model.tie_embeddings=false",), "one matrix.*use --to ctranslate2")])
def test_what_it_cannot_hold_is_refused(overrides: tuple[str, ...], why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--to huggingface: .*{why}"):
        exported(tmp_path, *overrides)
    assert not (tmp_path / "out").exists()

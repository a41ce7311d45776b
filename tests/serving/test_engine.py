"""What is loaded: a run, several, an export, and how what does not fit together is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from served import write_run

import minitx
from minitx.cli import main as cli
from minitx.data.tokenizer import TokenizerPair
from minitx.decoding.backend import Backend, Hypothesis, SearchOptions
from minitx.export.writing import export_run
from minitx.serving import engine
from minitx.serving.origin import read_origin
from minitx.utils.errors import Exit, UserError

LINES = ["the dog sees", "", "the cat"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs of three families with one vocabulary."""
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / model, f"model={model}") for model in ("transformer", "lstm_attention", "linear_rnn")]


@pytest.fixture(scope="module")
def exported(runs: list[Path]) -> Path:
    """A CTranslate2 model of the first."""
    out = runs[0].parent / "exported"
    export_run(runs[0], "ctranslate2", out)
    return out


def test_an_ensemble_of_one_is_the_run(runs: list[Path]) -> None:
    alone, listed = minitx.load(runs[0]), minitx.load([runs[0]])
    for beam_size in (1, 3):
        assert listed.n_best(LINES, beam_size, beam_size=beam_size) == alone.n_best(LINES, beam_size,
                                                                                    beam_size=beam_size)
    assert type(listed.model) is type(alone.model)


def test_runs_translate_and_score_together_from_the_command_line(runs: list[Path], tmp_path: Path,
                                                                 capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    text = tmp_path / "text"
    text.write_text("".join(f"{line}\n" for line in LINES))
    wanted = minitx.load(runs).translate(LINES)
    words = [*map(str, runs), "--device", "cpu"]
    assert wanted != minitx.load(runs[0]).translate(LINES)
    assert cli.main(["translate", *words, "-i", str(text)]) == Exit.OK
    assert capfdbinary.readouterr().out.decode().split("\n") == [*wanted, ""]
    assert cli.main(["score", *words, "--src", str(text), "--ref", str(text)]) == Exit.OK
    lines = capfdbinary.readouterr().out.splitlines()
    assert cli.main(["score", words[0], "--src", str(text), "--ref", str(text)]) == Exit.OK
    assert capfdbinary.readouterr().out.splitlines() != lines
    assert cli.main(["evaluate", *words, "--src", str(text), "--ref", str(text)]) == Exit.OK
    assert minitx.evaluate(runs, LINES, LINES).sentences == 3


def test_nobody_looks_into_several_models(runs: list[Path]) -> None:
    with pytest.raises(UserError, match="3 models translate together; take one run to look into"):
        minitx.load(runs).model  # noqa: B018


def test_runs_that_do_not_fit_together_are_refused(runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other")
    TokenizerPair.train([("a cat sits there", "der Hund sieht die Katze")] * 3, None, False).save(other)
    with pytest.raises(UserError, match="other: has another vocabulary than .*transformer; only runs with one"):
        minitx.load([runs[0], other])
    french = write_run(tmp_path / "french", "data=files", "data.tgt=fr", "data.src=en")
    with pytest.raises(UserError, match="french: translates en into fr, .*transformer en into de; only runs"):
        minitx.load([runs[0], french])
    with pytest.raises(TypeError, match=r"run_dir=\[\]: must name a run"):
        minitx.load([])
    with pytest.raises(TypeError, match="run_dir=3: must be a path"):
        minitx.load([runs[0], 3])  # type: ignore[list-item]


class Echo(Backend):
    """Write the source again."""

    def search(self, sources: list[list[int]], limits: list[int],  # type: ignore[override]
               options: SearchOptions) -> list[list[Hypothesis]]:
        return [[Hypothesis(ids[:limit], -1.0, -0.5)] for ids, limit in zip(sources, limits, strict=True)]

    def score(self, sources: list[list[int]], targets: list[list[int]]) -> list[float]:  # type: ignore[override]
        return [-1.0] * len(sources)


def test_an_export_is_opened_by_the_module_of_its_format(exported: Path, runs: list[Path],
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[Path, str]] = []

    def open_backend(folder: Path, manifest: object) -> Echo:
        opened.append((folder, manifest.format))  # type: ignore[attr-defined]
        return Echo()

    monkeypatch.setattr(engine, "import_module", lambda name: SimpleNamespace(open_backend=open_backend, name=name))
    translator = minitx.load(exported)
    assert opened == [(exported, "ctranslate2")]
    assert translator.decode == minitx.load(runs[0]).decode
    assert translator.tokenizers.fingerprint == minitx.load(runs[0]).tokenizers.fingerprint
    assert len(translator.translate(LINES)) == 3
    with pytest.raises(UserError, match="an export cannot be looked into; take the run that it was made from"):
        translator.model  # noqa: B018
    assert read_origin(exported) == read_origin(runs[0])
    assert cli.main(["translate", str(exported), "-i", "/dev/null"]) == Exit.OK


def test_an_export_scores_as_its_run_does(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "data.bleu_tokenizer=char", "decode.precision=bf16-mixed")
    export_run(run, "ctranslate2", tmp_path / "exported")
    assert read_origin(tmp_path / "exported") == read_origin(run)
    assert read_origin(run).bleu_tokenizer == "char"
    assert minitx.load(tmp_path / "exported").decode.precision is None, "the search is in that of the export"


@pytest.mark.parametrize(("asked", "message"), [
    ({"device": "cuda"}, "runs on the CPU here; leave the device out"),
    ({"precision": "bf16-mixed"}, "has the number format that it was exported in; leave it out")], ids=str)
def test_what_an_export_does_not_have_is_refused(asked: dict[str, str], message: str, exported: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match=message):
        minitx.load(exported, **asked)


def test_an_export_translates_alone_and_needs_its_engine(exported: Path, runs: list[Path],
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="exported: is an export, and only runs can translate together"):
        minitx.load([runs[0], exported])

    def lacks(name: str) -> None:
        raise ModuleNotFoundError("No module named 'ctranslate2'", name="ctranslate2")

    monkeypatch.setattr(engine, "import_module", lacks)
    with pytest.raises(UserError, match=r"exported: needs ctranslate2: pip install 'minitx\[export\]'"):
        minitx.load(exported)

"""The command line: each mistake gets its exact line before torch is imported and anything is created."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minitx.cli.train import main
from minitx.config.compose import compose
from minitx.data.corpus import check_text
from minitx.utils.errors import UserError

TRAIN = Path(__file__).parents[2] / "train.py"
STUB = """
import sys, types
run = types.ModuleType("minitx.training.train")
def train(cfg):
    print("TRAINS", cfg.seed, cfg.choices.model, cfg.run_dir, flush=True)
    return 3 if cfg.seed == 13 else 0
run.train = train
sys.modules["minitx.training.train"] = run
from minitx.cli.train import main
main()
"""
WAITS = """
    import os, signal, time
    def stop(kind, frame):
        time.sleep(0.1)
        os.write(1, b"CLEAN\\n")  # print may be what the signal has interrupted
        sys.exit(128 + kind)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    os.write(1, b"READY\\n")
    time.sleep(30)
"""

LSTM_HAS = ("model=lstm has no such key; it has size, num_layers, d_model, d_hidden, dropout, attention, "
            "bidirectional, input_feeding, cell_loop, tie_embeddings")
SLIPS = {
    "modle=transformer": "unknown key modle=transformer; did you mean model?",
    "model=trnsformer": "model=trnsformer: no such option; did you mean transformer? "
                        "(gnmt, linear_rnn, linear_rnn_attention, lstm, lstm_attention, transformer, "
                        "transformer_learned, transformer_nope, transformer_rope, transformer_window)",
    **{f"model=lstm {word}": f"{word}: {LSTM_HAS}" for word in (
        "model.n_heads=2", "+model.n_heads=2", "++model.n_heads=2")},
    "model.family=lstm": "model.family=lstm: comes with model=lstm, which also brings its keys",
    "model=lstm model.d_hidden=33": "model.d_hidden=33: must be even, since model.bidirectional=true halves it",
    "model=lstm model.input_feeding=true": "model.input_feeding=true: needs an attention to feed back; "
                                           "model.attention=none has none",
    "model.dropuot=0.1": "unknown key model.dropuot=0.1; did you mean model.dropout?",
    "optm.lr=1": "unknown key optm.lr=1; did you mean optim.lr?",
    "lr=0.1": "unknown key lr=0.1; did you mean optim.lr?",
    "trainer.gpus=2": "unknown key trainer.gpus=2; did you mean trainer.devices?",
    "epochs=3": "unknown key epochs=3; did you mean trainer.max_steps?",
    "beam=2": "unknown key beam=2; did you mean decode.beam_size?",
    "model=rope": "model=rope: no such option; did you mean transformer_rope? "
                  "(gnmt, linear_rnn, linear_rnn_attention, lstm, lstm_attention, transformer, "
                  "transformer_learned, transformer_nope, transformer_rope, transformer_window)",
    "data=files data.folder=/text": "data.folder=/text: is a name in $MINITX_DATA; did you mean data.dir=/text?",
    "data.folder=~/text": "data.folder=~/text: is a name in $MINITX_DATA; did you mean data.dir=~/text?",
    "+foo=1": "unknown key foo=1",
    "trainer=5": "trainer=5: no such option (default)",
    "trainer.max_steps=0": "trainer.max_steps=0: must be at least 1 (stop after this many optimizer steps)",
    "trainer.max_steps=many": "trainer.max_steps=many: must be a whole number (stop after this many optimizer steps)",
    "optim.lr=-1": "optim.lr=-1.0: must be greater than 0 (peak learning rate of AdamW)",
    "trainer.precision=bf16": "trainer.precision=bf16: must be one of auto, 32-true, bf16-mixed, 16-mixed, bf16-true, "
                              "64-true; did you mean bf16-true?",
    "model.n_heads=3": "model.n_heads=3: must divide model.d_model=128 into equal even parts",
    "~optim": "optim is missing: AdamW, loss and schedule",
    "data=files": "data=files needs data.dir: a folder with train.en, train.de, val.en ...",
    "data=files data.dir=nowhere": "data.dir=nowhere: no such folder",
    "data.dir=nowhere": "data.dir=nowhere: the synthetic text reads no folder; did you mean data=files?",
    "resume=auto": "resume=auto: needs run_dir, the run to continue",
    "model=transformer,transformer_nope": "model=transformer,transformer_nope: several values need --multirun; "
                                          "one value with commas needs quotes",
    "model=[transformer,transformer_nope]": "model=[transformer,transformer_nope]: takes one option; to run several: "
                                            "--multirun model=transformer,transformer_nope",
    "--multirun seed=1,x": "seed=x: must be a whole number (seed of weights, order and dropout)",
    "--multirun seed=1,2 run_dir=x": "run_dir=x: shared by 2 jobs; leave it out, or name it by what varies: "
                                     "run_dir='runs/${choices.model}-${seed}'",
    "--multirun seed=1,1": "seed=1: 2 jobs are the same; name each value once",
    "model": "Error parsing override 'model' missing EQUAL at '<EOF>'; write key=value, and quote special characters",
    "seed=ü": "seed=ü; write key=value, and quote special characters",
    "--modle transformer": "unrecognized arguments: --modle; see python train.py --help",
    "--resolve": "--resolve: says how --cfg shows the config; add --cfg job",
    "--config-dir nowhere": "--config-dir=nowhere: no such folder",
    "seed=18446744073709551616": "seed=18446744073709551616: must be at most 18,446,744,073,709,551,615 "
                                 "(seed of weights, order and dropout)",
    "seed=-1": "seed=-1: must be at least 0 (seed of weights, order and dropout)",
    "trainer.precision=3_2": "trainer.precision=3_2: must be one of auto, 32-true, bf16-mixed, 16-mixed, bf16-true, "
                             "64-true",
    "--multirun run_dir=2024_05,2024_05": "run_dir=2024_05: shared by 2 jobs; leave it out, or name it by what varies: "
                                          "run_dir='runs/${choices.model}-${seed}'",
    "--multirun init_from=range(1,3)": "init_from=1: must be text, in quotes if it looks like a number (run "
                                       "whose weights and tokenizer this one starts from; null = weights drawn from "
                                       "the seed)",
    "hydra.run.dir=x": "hydra.run.dir=x: has no effect; name the folder of a run with run_dir",
    "hydra.job.chdir=true": "hydra.job.chdir=true: has no effect; a run stays in the folder where it was started",
    "hydra.output_subdir=x": "hydra.output_subdir=x: has no effect; the settings of a run are in its config.yaml",
    "++hydra.mode=MULTIRUN": "hydra.mode=MULTIRUN: has no effect; add --multirun to the command line",
    "--multirun hydra.job.chdir=true seed=1,2": "hydra.job.chdir=true: has no effect; a run stays in "
                                                "the folder where it was started",
    "data.src=${nothing}": "Interpolation key 'nothing' not found full_key: data.src object_type=dict",
    "--cfg job model=trnsformer": "model=trnsformer: no such option; did you mean transformer? "
                                  "(gnmt, linear_rnn, linear_rnn_attention, lstm, lstm_attention, transformer, "
                                  "transformer_learned, transformer_nope, transformer_rope, transformer_window)",
}  # fmt: skip
IN_A_PROCESS = ("modle=transformer", "model=trnsformer", "model.dropuot=0.1", "+foo=1", "trainer.max_steps=0",
                "optim.lr=-1", "data=files data.dir=nowhere", "model.n_heads=3", "--multirun seed=1,x",
                "--modle transformer")  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MINITX_DATA", "MINITX_ALLOCATOR", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)


def python(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | env, check=False)


def imported() -> str:
    """A script that is train.py, and ends by naming the slow libraries that it has imported."""
    return ("import atexit, runpy, sys; atexit.register(lambda: print(sorted({'torch', 'lightning', 'datasets'}"
            f" & set(sys.modules)))); sys.argv[0] = {str(TRAIN)!r}; runpy.run_path(sys.argv[0], run_name='__main__')")


@pytest.mark.parametrize("words", SLIPS, ids=lambda words: words.replace(" ", "_"))
def test_a_mistake_gets_its_line(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *words.split()])
    with pytest.raises(SystemExit) as left:
        main()
    seen = capsys.readouterr()
    assert seen.err == f"minitx: error: {SLIPS[words]}\n"
    assert (left.value.code, seen.out, list(tmp_path.iterdir())) == (2, "", [])


@pytest.mark.parametrize("words", IN_A_PROCESS, ids=lambda words: words.replace(" ", "_"))
def test_a_mistake_is_reported_before_torch_is_imported(words: str) -> None:
    done = python("-c", imported(), *words.split())
    assert done.stderr == f"minitx: error: {SLIPS[words]}\n"
    assert (done.returncode, done.stdout) == (2, "[]\n")


@pytest.mark.parametrize(("words", "line"), [
    ("", "text/val.en: its other side, val.de, is missing (there are: val.en)"),
    ("data.tgt=cs", "text/train.en: its other side, train.cs, is missing (there are: train.de, train.en)"),
    ("data.src=eng data.tgt=deu", "text: no train split for eng-deu: wants train.eng and train.deu (or .gz) or "
                                  "train.tsv, .jsonl, .parquet; there are: train.de, train.en, val.en")])
def test_a_slip_in_the_text_is_reported_before_torch_is_imported(words: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for name in ("train.en", "train.de", "val.en"):
        (tmp_path / "text" / name).write_text("1\n2\n")
    done = python("-c", imported(), "data=files", "data.dir=text", *words.split())
    assert done.stderr == f"minitx: error: {line}\n"
    assert (done.returncode, done.stdout) == (3, "[]\n")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


@pytest.mark.parametrize(("settings", "line"), [
    ("hydra: {mode: MULTIRUN}", "hydra.mode=MULTIRUN: has no effect; add --multirun to the command line"),
    ("hydra: {run: {dir: mine}}", "hydra.run.dir=mine: has no effect; name the folder of a run with run_dir"),
    ("hydra: {job: {chdir: true}}", "hydra.job.chdir=true: has no effect; a run stays in the folder where it was "
                                    "started"),
    ("run_dir: 2024_05", "run_dir=202405: must be text, in quotes if it looks like a number (folder of the run; null = "
                         "a new one under runs/)")])
def test_what_an_experiment_may_not_set(settings: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{settings}\n")
    with pytest.raises(UserError) as caught:
        compose(["experiment=mine", "--config-dir", str(tmp_path)])
    assert str(caught.value) == line


def test_debug_shows_the_traceback_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "debug=true", "modle=transformer"])
    with pytest.raises(SystemExit):
        main()
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert err.endswith("minitx: error: unknown key modle=transformer; did you mean model?\n")


def test_a_config_may_be_of_a_text_that_is_elsewhere() -> None:
    cfg = compose(["data=files", "data.dir=nowhere"])
    with pytest.raises(UserError, match="^data.dir=nowhere: no such folder$"):
        check_text(cfg.data)


def test_help_is_worth_reading() -> None:
    done = python(TRAIN, "model=transformer_nope", "--help")
    assert done.returncode == 0
    for line in (r"  \* model=transformer_nope +  The same network, told nothing about positions\.$",
                 r"    model\.pos_encoding=none +  how positions are encoded \[sinusoidal, learned"):
        assert re.search(f"^{line}", done.stdout, re.MULTILINE)
    listed = done.stdout.partition("The keys used most")[0].splitlines()[5:-1]
    groups = [line.split("=")[0].strip(" *") for line in listed]
    assert list(dict.fromkeys(groups)) == ["data", "tokenizer", "model", "optim", "trainer", "checkpoint", "decode",
                                           "logger", "experiment"]  # fmt: skip
    assert "Examples" in done.stdout


def test_the_columns_of_help_stay_apart() -> None:
    """However long a name or a value is."""
    shown = python(TRAIN, "--help", "data=files", "data.dir=" + "long/" * 20).stdout
    groups, keys = shown.partition("The keys used most")[::2]
    for part in (groups.splitlines()[5:-1], keys.partition("Examples")[0].splitlines()[1:-1]):
        begins = {match and match.end() for match in (re.match(r"[ *]+\S+ {2,}", line) for line in part)}
        assert None not in begins
        assert len(begins) == 1


def test_help_shows_the_keys_of_the_chosen_family() -> None:
    done = python(TRAIN, "model=lstm_attention", "--help")
    assert "    model.attention=dot " in done.stdout
    assert "model.pos_encoding" not in done.stdout


def test_hydras_own_commands_stay(tmp_path: Path) -> None:
    job = python(TRAIN, "--cfg", "job", "--resolve", "--package", "optim", "optim.lr=0.5")
    assert job.stdout.startswith("# @package optim\nlr: 0.5\nbeta1: 0.9\n")
    complete = python(TRAIN, "-sc", "query=bash", COMP_LINE="python train.py model=tr", COMP_POINT="24")
    assert complete.stdout.split() == ["model=transformer", "model=transformer_learned", "model=transformer_nope",
                                       "model=transformer_rope", "model=transformer_window"]
    both = python(TRAIN, "--cfg", "job", "--multirun")
    assert both.stderr.startswith("minitx: error: Only one of --run, --multirun, --cfg")
    assert "transformer_nope" in python(TRAIN, "--info", "defaults-tree", "model=transformer_nope").stdout
    assert list(tmp_path.iterdir()) == []


def test_a_run_reaches_training_with_a_directory_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "stub.py").write_text(STUB)
    done = python("stub.py", "seed=5", "experiment=quick")
    [run_dir] = (tmp_path / "runs").iterdir()
    assert done.stdout == f"TRAINS 5 transformer runs/{run_dir.name}\n"
    assert run_dir.name.endswith("-quick")
    assert [path.name for path in run_dir.iterdir()] == ["config.yaml"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "stub.py"] == ["runs"]


def test_multirun_gives_each_job_a_process_and_fails_if_one_failed(tmp_path: Path) -> None:
    (tmp_path / "stub.py").write_text(STUB)
    done = python("stub.py", "--multirun", "seed=13,1", "model=transformer_nope", MINITX_ALLOCATOR="as it is")
    trained = [line.split()[1:3] for line in done.stdout.splitlines() if line.startswith("TRAINS")]
    assert trained == [["13", "transformer_nope"], ["1", "transformer_nope"]]
    assert done.returncode == 3
    assert done.stderr == "minitx: job failed with exit code 3: seed=13 model=transformer_nope\n"
    (sweep,) = (tmp_path / "runs").iterdir()
    assert sorted(path.name for path in sweep.iterdir()) == ["multirun.yaml", "seed=1", "seed=13"]
    lines = done.stdout.splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("run  "))
    assert [line.split()[0] for line in lines[place + 1:place + 3]] == [f"runs/{sweep.name}/seed={n}" for n in (13, 1)]
    assert [path.name for path in tmp_path.iterdir() if path.name != "stub.py"] == ["runs"]


def test_a_sweep_is_named_by_what_varies_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    (tmp_path / "stub.py").write_text(STUB)
    words = ("stub.py", "--multirun", "hydra.sweep.dir=runs/mine", "experiment=quick", "optim.lr=0.1,0.2",
             "data.test_sets=[test],[minimal_pairs]")
    done = python(*words, MINITX_ALLOCATOR="as it is")
    assert done.returncode == 0, done.stderr
    names = [f"optim.lr={lr},data.test_sets={name}" for lr in (0.1, 0.2) for name in ("test", "minimal_pairs")]
    assert [line.split()[3] for line in done.stdout.splitlines() if line.startswith("TRAINS")] == [
        f"runs/mine/{name}" for name in names]
    assert "is not empty; name a new folder, or add resume=auto" in python(*words, MINITX_ALLOCATOR="as it is").stderr
    again = python(*words, "resume=auto", MINITX_ALLOCATOR="as it is")
    assert (again.returncode, again.stdout.count("TRAINS")) == (0, 4)
    assert sorted(path.name for path in (tmp_path / "runs/mine").iterdir()) == ["multirun.yaml", *sorted(names)]
    begun = python("stub.py", f"init_from=runs/mine/{names[0]}", "experiment=quick")
    assert "several values need" not in begun.stderr


@pytest.mark.parametrize("word", ["hydra.sweep.dir=~/mine", "++hydra.sweep.dir='~/mine'"])
def test_a_sweep_may_be_below_the_home_folder(word: str, tmp_path: Path) -> None:
    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "home").mkdir()
    done = python("stub.py", "--multirun", word, "seed=1,2", MINITX_ALLOCATOR="as it is", HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "stub.py"]
    assert sorted(path.name for path in (tmp_path / "home/mine").iterdir()) == ["multirun.yaml", "seed=1", "seed=2"]


def test_a_sweep_s_folder_in_a_file_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nhydra: {sweep: {dir: ~/mine}}\n")
    with pytest.raises(UserError, match=r"^hydra.sweep.dir=~/mine: ~ is the home folder on the command line alone; "):
        compose(["--config-dir", str(tmp_path), "experiment=mine"])


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_sweep_by_the_clean_end_of_its_job(kind: signal.Signals, code: int, tmp_path: Path) -> None:
    (tmp_path / "stub.py").write_text(STUB.replace("    return", WAITS + "    return"))
    sweep = subprocess.Popen([sys.executable, "stub.py", "--multirun", "seed=1,2"], stdout=subprocess.PIPE, text=True,
                             env=os.environ | {"MINITX_ALLOCATOR": "as it is"}, start_new_session=True)  # fmt: skip
    assert sweep.stdout is not None
    while not sweep.stdout.readline().startswith("READY"):
        pass
    if kind is signal.SIGTERM:
        sweep.terminate()  # a scheduler tells the first process alone
    else:
        os.killpg(sweep.pid, kind)  # a terminal tells them all
    said, _ = sweep.communicate(timeout=30)
    assert (said.split(), sweep.returncode) == (["CLEAN"], code)


def test_a_folder_of_ones_own_configs(tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "wide.yaml").write_text("defaults: [transformer, _self_]\nd_ff: 999\n")
    (tmp_path / "mine" / "model" / "typo.yaml").write_text("defaults: [transformer, _self_]\nd_fff: 999\n")
    shown = python(TRAIN, "--config-dir", "mine", "model=wide", "--cfg", "job", "--package", "model.d_ff")
    assert shown.stdout == "999\n"
    slip = python(TRAIN, "--config-dir", "mine", "model=typo")
    assert slip.stderr == "minitx: error: unknown key model.d_fff=999; did you mean model.d_ff?\n"


def test_what_standard_output_cannot_encode_is_escaped() -> None:
    shown = python(TRAIN, "--cfg", "job", "--package", "run_dir", "run_dir=läufe", PYTHONIOENCODING="ascii")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "l\\xe4ufe\n", "")

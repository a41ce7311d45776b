"""Sets of the hub, from repositories laid out like the hub's on this disk: no test needs a network."""

import logging
import socket
import subprocess
import sys
from importlib import import_module
from threading import Event

import pyarrow as pa
import pyarrow.parquet
import pytest
from data.conftest import data_config
from data.test_corpus import PAIRS, table, write

from minitx.data.corpus import find_text, load_corpus
from minitx.data.hub import why_unreachable
from minitx.utils.errors import Exit, UserError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Ask for a data set of the hub, or a folder laid out like one."""
    monkeypatch.delenv("MINITX_DATA", raising=False)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return lambda folder, **changes: load_corpus(data_config(source="hub", hub_id=str(folder), **changes))


def repository(folder, configs):
    """Write a repository of several language pairs as the hub's large sets have them: a folder of parquet a pair."""
    card = ["---", "configs:"]
    for name, langs in configs.items():
        for split, stem in {"train": "train", "valid": "validation", "test_2016": "test"}.items():
            rows = [{"translation": dict(zip(langs, (name + src, tgt), strict=True))} for src, tgt in PAIRS[split]]
            path = folder / name / f"{stem}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pa.parquet.write_table(pa.Table.from_pylist(rows), path)
        files = [f"  - split: {split}\n    path: {name}/{split}-*" for split in ("train", "validation", "test")]
        card += [f"- config_name: {name}", "  data_files:", *files]
    write(folder / "README.md", [*card, "---"])
    return folder


def test_a_repository_as_the_hub_has_it(tmp_path, hub):
    (repo := tmp_path / "repo").mkdir()
    table(repo, "jsonl", {"train": "train", "valid": "val", "test_2016": "test"})
    corpus = hub(repo)
    assert corpus.splits == ("train", "valid", "test")
    assert corpus.test_sets == ("test",)
    assert {split: corpus.read(split) for split in corpus.splits} == {
        "train": PAIRS["train"], "valid": PAIRS["valid"], "test": PAIRS["test_2016"]}
    assert corpus.origin == f"hub: {repo}"
    with pytest.raises(UserError, match=r"train: row 1 has no field fr \(it has id, en, de\)"):
        hub(repo, tgt="fr")


def test_a_pair_of_the_hub_is_found_in_both_directions(tmp_path, hub):
    repo = repository(tmp_path / "repo", {"de-en": ("de", "en"), "en-fr": ("en", "fr")})
    there, back, french = hub(repo), hub(repo, src="de", tgt="en"), hub(repo, tgt="fr")
    assert there.splits == ("train", "valid", "test")
    assert back.read("test") == [(f"de-en{src}", tgt) for src, tgt in PAIRS["test_2016"]]
    assert there.read("test") == [(tgt, src) for src, tgt in back.read("test")]
    assert french.read("valid") == [("en-fra cat", "eine Katze")]
    assert len({corpus.fingerprint for corpus in (there, back, french)}) == 3
    assert hub(repo, hub_name="de-en").read("train") == there.read("train")
    with pytest.raises(UserError, match=r"has no en-cs or cs-en \(BuilderConfig 'en-cs' not found. Available: "
                                        r"\['de-en', 'en-fr'\]\); data.src and data.tgt name the languages") as caught:
        hub(repo, tgt="cs")
    assert caught.value.code == Exit.DATA
    with pytest.raises(UserError, match=r"has no de-cs \(BuilderConfig 'de-cs' not found"):
        hub(repo, hub_name="de-cs")
    assert "\n" not in str(caught.value)


def test_a_folder_of_the_hub_may_be_named(tmp_path, hub):
    repo = repository(tmp_path / "repo", {"talks-de-en": ("de", "en"), "talks-en-de": ("en", "de")})
    (repo / "README.md").unlink()  # the hub's own copies in parquet have none, and a folder a split
    for path in list(repo.rglob("*.parquet")):
        (folder := path.parent / path.name.partition("-")[0]).mkdir()
        path.rename(folder / "0000.parquet")
    assert hub(repo, hub_name="talks-en-de").read("valid") == [("talks-en-dea cat", "eine Katze")]


def test_a_part_of_a_set_of_the_hub(tmp_path, hub, monkeypatch):
    monkeypatch.setattr("minitx.data.hub.ROWS", 1)
    repo = repository(tmp_path / "repo", {"en-de": ("en", "de")})
    whole, part = hub(repo), hub(repo, max_pairs=2)
    assert part.read("train") == whole.read("train")[:2]
    assert part.read("test") == whole.read("test")
    assert part.fingerprint != whole.fingerprint
    assert hub(repo, max_pairs=100).read("train") == whole.read("train")


def test_a_set_of_the_hub_with_a_training_split_alone(tmp_path, hub):
    (tmp_path / "repo").mkdir()
    rows = [{"id": n, "translation": {"en": f"word {n}", "de": f"Wort {n}"}} for n in range(20)]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "repo/train-00000-of-00001.parquet")
    with pytest.raises(UserError, match="has no valid split, but train; data.hold_out takes the other sets from train"):
        hub(tmp_path / "repo")
    corpus = hub(tmp_path / "repo", hold_out=4)
    assert [len(corpus.pairs(split)) for split in corpus.splits] == [12, 4, 4]


def test_offline_without_a_copy_names_the_remedies(tmp_path):
    code = ("import sys; sys.path[:0] = sys.argv[1:]; from data.conftest import *\n"
            "try: load_corpus(data_config(source='hub', folder='multi30k', hub_id='bentrevett/multi30k'))\n"
            "except Exception as e: print(type(e).__name__, getattr(e, 'code', None), e)")
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    run = [sys.executable, "-c", code, *filter(None, sys.path)]
    done = subprocess.run(run, env=env, capture_output=True, text=True)
    assert done.stdout.startswith("UserError 3 data.hub_id=bentrevett/multi30k: cannot be loaded from the hub")
    assert done.stdout.count("\n") == 1
    for remedy in ("data.dir=FOLDER", "MINITX_DATA to a folder that holds multi30k/", "connect once"):
        assert remedy in done.stdout


def test_a_set_of_the_hub_is_streamed_by_rows(tmp_path, hub, monkeypatch):
    (repo := tmp_path / "repo").mkdir()
    table(repo, "parquet", {"train": "train-00000-of-00001", "valid": "validation", "test_2016": "test"})
    monkeypatch.setattr("minitx.data.hub.SHARD", 2)
    monkeypatch.setattr("minitx.data.corpus.SHARD", 2)
    corpus = hub(repo, streaming=True)
    assert [shard.read("train") for shard in corpus.shards] == [PAIRS["train"][:2], PAIRS["train"][2:]]
    assert corpus.shards[0].read("valid") == PAIRS["valid"]
    assert len({corpus.fingerprint, *(shard.fingerprint for shard in corpus.shards)}) == 3


# --- where the hub does not answer


@pytest.fixture
def closed_port(monkeypatch):
    """A hub whose name is known and where nobody listens."""
    for name in ("MINITX_DATA", "HF_HUB_OFFLINE", "https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        yield


def test_a_hub_that_does_not_answer_is_not_asked_again(closed_port, tmp_path, monkeypatch, caplog):
    asked = []

    def load(path, **options):
        asked.append((import_module("datasets.config").HF_HUB_OFFLINE, options))
        logging.getLogger("huggingface_hub").warning("Retrying in 8s")
        raise ConnectionError("a try of its own")

    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    with pytest.raises(UserError) as caught:
        find_text(data_config(source="hub", folder="multi30k", hub_id="nobody/nothing"))
    assert str(caught.value) == (
        "data.hub_id=nobody/nothing: cannot be loaded from the hub, and there is no copy here (127.0.0.1 does not "
        "answer); set data.dir=FOLDER (train.en, train.de, val.en, ...), or MINITX_DATA to a folder that holds "
        "multi30k/, or connect once")
    assert caught.value.code == Exit.DATA
    assert asked == [(True, {"revision": None, "name": "en-de"})]
    assert not caplog.records
    assert import_module("datasets.config").HF_HUB_OFFLINE is False, "a later try may find the hub"


def test_a_hub_that_answers_is_asked_only_once_the_text_is_read(closed_port, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        assert why_unreachable("nobody/nothing") is None
        find_text(data_config(source="hub", hub_id="nobody/nothing"))


def test_a_name_that_is_looked_up_for_ever_is_not_waited_for(closed_port, monkeypatch):
    over = Event()

    def connect(*_, **__):
        over.wait(30)
        raise OSError

    monkeypatch.setattr("minitx.data.hub.ANSWER_S", 0.05)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert why_unreachable("nobody/nothing") == "127.0.0.1 does not answer"
    over.set()


@pytest.mark.parametrize(("wish", "why"), [("1", "HF_HUB_OFFLINE=1"), ("ON", "HF_HUB_OFFLINE=ON"), ("0", None)])
def test_who_says_whether_to_ask_is_believed(closed_port, monkeypatch, wish, why):
    monkeypatch.setenv("HF_HUB_OFFLINE", wish)
    assert why_unreachable("nobody/nothing") == why


def test_the_way_leads_through_a_proxy(closed_port, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert why_unreachable("nobody/nothing") is None


def test_a_folder_needs_no_hub(closed_port, tmp_path):
    assert why_unreachable(str(tmp_path)) is None

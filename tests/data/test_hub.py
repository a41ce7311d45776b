"""Sets of the hub, from repositories laid out like the hub's on this disk: no test needs a network."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest
from data.conftest import data_config
from data.test_corpus import PAIRS, table, write

from minitx.data.corpus import load_corpus
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

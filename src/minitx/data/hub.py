"""A data set of the Hugging Face hub: finds the configuration of a language pair, and reads its tables as pairs.

Where the hub does not answer, the copy here is used, or one error says so within seconds: the hub's own client would
try again and again for a minute, and log each try.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from minitx.config.schema import DataConfig
from minitx.data.files import VALID_NAMES, Pair, table_pairs
from minitx.utils.console import notify
from minitx.utils.errors import Exit, UserError

ROWS = 50_000  # of a table in memory at a time; the tables themselves are mapped files
SHARD = 2 * ROWS  # of a table that is streamed
ANSWER_S = 3.0  # within which the hub has to answer
CLIENT = ("datasets", "huggingface_hub", "httpx", "urllib3", "fsspec", "filelock")  # loggers of what talks to it
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class HubSet:
    """Splits, under the names they have here, as tables of the `datasets` library."""

    cfg: DataConfig
    tables: dict[str, Any]

    def batches(self, split: str, limit: int | None = None, begin: int = 0) -> Iterator[list[Pair]]:
        """Yield the pairs of a split, or `limit` of them from row `begin` on, some at a time.

        Errors: `UserError` naming the row.
        """
        table, number = self.tables[split], begin + 1
        if limit is not None:
            table = table.select(range(begin, min(begin + limit, len(table))))
        for batch in table.with_format("arrow").iter(ROWS):
            yield table_pairs(batch, self.cfg.src, self.cfg.tgt, f"{self.cfg.hub_id} {split}: row", number)
            number += len(batch)

    def read(self, split: str, limit: int | None = None) -> list[Pair]:
        """Return the pairs of a split, or its first `limit`."""
        return [pair for batch in self.batches(split, limit) for pair in batch]

    def read_shard(self, begin: int, limit: int = SHARD) -> list[Pair]:
        """Return training pairs from row `begin` on."""
        return [pair for batch in self.batches("train", min(limit, SHARD), begin) for pair in batch]

    def shards(self, split: str) -> list[int]:
        """Return the first row of each shard of `SHARD` rows."""
        return list(range(0, len(self.tables[split]), SHARD))


def download(cfg: DataConfig, why: str | None = None) -> HubSet:
    """Load the data set from the hub, or its copy in the hub's own cache.

    why: what `why_unreachable` said, if it was asked and said why.
    Errors: `UserError` if it cannot be loaded, or has no configuration for the pair.
    """
    assert cfg.hub_id is not None
    why = why or why_unreachable(cfg.hub_id)
    try:
        with _silent_client(), nullcontext() if why is None else _offline():
            tables = _load(cfg)
        if why is not None and "HF_HUB_OFFLINE" not in why:
            notify(f"data.hub_id={cfg.hub_id}: {why}, so the copy here is used")
    except ValueError as error:  # no configuration of that name: datasets lists what there is
        pair = cfg.hub_name or f"{cfg.src}-{cfg.tgt} or {cfg.tgt}-{cfg.src}"
        raise UserError(f"data.hub_id={cfg.hub_id}: has no {pair} ({_reason(error)}); data.src and data.tgt name the "
                        "languages, data.hub_name a configuration", Exit.DATA) from error
    except Exception as error:  # whatever the hub's client, its network library or the cache raise
        remedies = f"set data.dir=FOLDER (train.{cfg.src}, train.{cfg.tgt}, val.{cfg.src}, ...)"
        if cfg.folder:
            remedies += f", or MINITX_DATA to a folder that holds {cfg.folder}/"
        raise UserError(f"data.hub_id={cfg.hub_id}: cannot be loaded from the hub, and there is no copy here "
                        f"({why or _reason(error)}); {remedies}, or connect once", Exit.DATA) from error
    return HubSet(cfg, {"valid" if name in VALID_NAMES else name: table for name, table in tables.items()})


def why_unreachable(hub_id: str) -> str | None:
    """Return why the hub is not asked for a data set, or None if it is. A folder laid out like one needs no hub.

    HF_HUB_OFFLINE decides, where it is set; elsewhere the hub, or the proxy on the way to it, has to take a connection.
    """
    if Path(hub_id).is_dir():
        return None
    if wish := os.environ.get("HF_HUB_OFFLINE"):
        return f"HF_HUB_OFFLINE={wish}" if wish.upper() in ("1", "ON", "YES", "TRUE") else None
    asked = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    proxies = getproxies()
    proxy = proxies.get(asked.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(str(asked.hostname)):
        asked = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = str(asked.hostname), asked.port or PORTS.get(asked.scheme, 443)
    return None if _answers(host, port) else f"{host} does not answer"


def _answers(host: str, port: int) -> bool:
    """Tell whether a host takes a connection: an address within `ANSWER_S`, all of them within thrice that."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            socket.create_connection((host, port), timeout=ANSWER_S).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(3 * ANSWER_S)
    return answers == [True]


@contextmanager
def _offline() -> Iterator[None]:
    """Let the hub's client look for copies alone."""
    modules: list[Any] = [import_module(name) for name in ("datasets.config", "huggingface_hub.constants")]
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


@contextmanager
def _silent_client() -> Iterator[None]:
    """Keep the log of the hub's client from the user: what matters of it is in our errors."""
    import_module("datasets")  # sets levels of its own
    loggers = [logging.getLogger(name) for name in CLIENT]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _load(cfg: DataConfig) -> dict[str, Any]:
    """Try the names a pair may have: the hub keeps each pair in one order, and lists its names only online."""
    from datasets import load_dataset  # type: ignore[import-untyped]  # 1.6 s: only when the hub is wanted

    if cfg.hub_name is None:
        tries = [{"name": f"{cfg.src}-{cfg.tgt}"}, {"name": f"{cfg.tgt}-{cfg.src}"}, {}]
    else:
        tries = [{"name": cfg.hub_name}, {"data_dir": cfg.hub_name}]
    refused: list[ValueError] = []
    for options in tries:
        try:
            return dict(load_dataset(cfg.hub_id, revision=cfg.hub_revision, **options))
        except ValueError as error:
            refused.append(error)
        except FileNotFoundError:  # nor a folder of that name
            if not refused:
                raise
    raise refused[0]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

"""A data set of the Hugging Face hub: which configuration holds a language pair, its tables -> (src, tgt)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minitx.config.schema import DataConfig
from minitx.data.files import VALID_NAMES, Pair, table_pairs
from minitx.utils.errors import Exit, UserError

ROWS = 50_000  # of a table in memory at a time; the tables themselves are mapped files
SHARD = 2 * ROWS  # of a table that is streamed


@dataclass(frozen=True)
class HubSet:
    """Read splits, by our names for them, from tables of the `datasets` library."""

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
        """Return the rows that parts of `SHARD` begin at."""
        return list(range(0, len(self.tables[split]), SHARD))


def download(cfg: DataConfig) -> HubSet:
    """Load the data set from the hub, or its copy in the hub's own cache.

    Errors: `UserError` if it cannot be had, or has no such configuration.
    """
    try:
        tables = _load(cfg)
    except ValueError as error:  # no configuration of that name: datasets lists what there is
        pair = cfg.hub_name or f"{cfg.src}-{cfg.tgt} or {cfg.tgt}-{cfg.src}"
        raise UserError(f"data.hub_id={cfg.hub_id}: has no {pair} ({_reason(error)}); data.src and data.tgt name the "
                        "languages, data.hub_name a configuration", Exit.DATA) from error
    except Exception as error:  # whatever the hub's client, its network library or the cache raise
        remedies = f"set data.dir=FOLDER (train.{cfg.src}, train.{cfg.tgt}, val.{cfg.src}, ...)"
        if cfg.folder:
            remedies += f", or MINITX_DATA to a folder that holds {cfg.folder}/"
        raise UserError(f"data.hub_id={cfg.hub_id}: not to be had from the hub, and no copy here ({_reason(error)}); "
                        f"{remedies}, or connect once", Exit.DATA) from error
    return HubSet(cfg, {"valid" if name in VALID_NAMES else name: table for name, table in tables.items()})


def _load(cfg: DataConfig) -> dict[str, Any]:
    """Try the names a pair may go by: the hub keeps each pair in one order, and tells names apart only online."""
    from datasets import load_dataset  # type: ignore[import-untyped]  # 1.6 s: only when the hub is wanted

    if cfg.hub_name is None:
        tries = [{"name": f"{cfg.src}-{cfg.tgt}"}, {"name": f"{cfg.tgt}-{cfg.src}"}, {}]
    else:
        tries = [{"name": cfg.hub_name}, {"data_dir": cfg.hub_name}]
    refused: list[ValueError] = []
    for words in tries:
        try:
            return dict(load_dataset(cfg.hub_id, revision=cfg.hub_revision, **words))
        except ValueError as error:
            refused.append(error)
        except FileNotFoundError:  # nor a folder of that name
            if not refused:
                raise
    raise refused[0]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

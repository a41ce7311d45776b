"""A data set of the Hugging Face hub: finds the configuration of a language pair, and reads its tables as pairs."""

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


def download(cfg: DataConfig) -> HubSet:
    """Load the data set from the hub, or its copy in the hub's own cache.

    Errors: `UserError` if it cannot be loaded, or has no configuration for the pair.
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
        raise UserError(f"data.hub_id={cfg.hub_id}: cannot be loaded from the hub, and there is no copy here "
                        f"({_reason(error)}); {remedies}, or connect once", Exit.DATA) from error
    return HubSet(cfg, {"valid" if name in VALID_NAMES else name: table for name, table in tables.items()})


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

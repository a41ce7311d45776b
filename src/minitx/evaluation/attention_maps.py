"""The attention weights of every head for one sentence pair, as a small file that can be published.

Weights are stored in ten-thousandths, as whole numbers. Row t of "cross" and "decoder" is the step that chose target
token t; the decoder had then read BOS and all target tokens before it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt

from minitx.runs.result import system_name
from minitx.utils.errors import Exit, UserError

FORMAT, SCALE = 1, 10_000
LARGEST = 100_000  # bytes of a file; git keeps every version for ever
BOS, EOS = "<bos>", "<eos>"
KINDS = ("encoder", "decoder", "cross")  # by the names of `Seq2Seq.attentions`
RUN = {"experiment": (str, NoneType), "model": (str,), "seed": (int,), "config_sha256": (str,)}  # of which run
KEYS = {"format", "scale", *RUN, "source", "target", "weights"}

Parts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Hold a sentence, its translation and, by kind of attention, the weights [layers, heads, L, S], in 1 / `SCALE`.

    source, target: tokens, EOS last; joined, the tokens before it are the text.
    """

    experiment: str | None
    model: str
    seed: int
    config_sha256: str
    source: list[str]
    target: list[str]
    weights: dict[str, Parts]

    @classmethod
    def parse(cls, values: Any, where: str) -> "AttentionMaps":
        """Build maps from JSON, checking all that can be checked. Errors: `UserError` beginning with `where`."""
        version = values.get("format") if isinstance(values, Mapping) else None
        if version != FORMAT:
            raise UserError(f"{where}: format {version} of attention maps, this version reads {FORMAT}: make them "
                            "again with minitx attention")
        if wrong := values.keys() ^ KEYS:
            raise UserError(f"{where}: attention maps have the keys {', '.join(sorted(KEYS))}: see "
                            f"{', '.join(sorted(wrong))}")
        try:
            weights = {kind: np.array(parts) for kind, parts in values["weights"].items()}
            maps = cls(**{name: values[name] for name in RUN}, source=values["source"], target=values["target"],
                       weights=weights)
            why = maps.fault() if values["scale"] == SCALE else f"a scale other than {SCALE}"
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{where}: not attention maps: {error!r}") from error
        if why:
            raise UserError(f"{where}: {why}")
        return maps

    @property
    def system(self) -> str:
        """Return the name of the system that these maps are of."""
        return system_name(self.experiment, self.model)

    def sides(self, kind: str) -> tuple[list[str], list[str]]:
        """Return the tokens that attend, L, and those attended to, S."""
        read = [BOS, *self.target[:-1]]
        return {"encoder": (self.source, self.source), "decoder": (self.target, read),
                "cross": (self.target, self.source)}[kind]

    def fault(self) -> str | None:
        """Return what is wrong with the content, if anything."""
        for name, kinds in RUN.items():
            if type(getattr(self, name)) not in kinds:
                return f"{name} has a wrong type: {str(getattr(self, name))[:40]!r}"
        for side in (self.source, self.target):
            if not (isinstance(side, list) and side and all(type(token) is str for token in side)):
                return "source and target are lists of tokens, with EOS at least"
        if not self.weights or not self.weights.keys() <= set(KINDS):
            return f"weights are of {', '.join(KINDS)}, not of {', '.join(self.weights) or 'nothing'}"
        for kind, parts in self.weights.items():
            L, S = map(len, self.sides(kind))
            if parts.dtype.kind != "i" or parts.shape[2:] != (L, S) or not parts.size:
                return f"{kind}: not whole numbers for each layer, each head, {L} tokens and the {S} they attend to"
            if parts.min() < 0 or (abs(parts.sum(-1) - SCALE) > S / 2).any():  # each is rounded by a half at most
                return f"{kind}: the weights of a token do not add up to {SCALE}"
            if kind == "decoder" and np.triu(parts, 1).any():
                return "decoder: a token attends to one that was not yet written"
        return None

    def json(self) -> str:
        """Write one line per key, the same for the same maps. Errors: `UserError` if that takes too many bytes."""
        def packed(value: Any) -> str:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

        plain = {"format": FORMAT, **{name: getattr(self, name) for name in RUN}, "source": self.source,
                 "target": self.target, "scale": SCALE}
        lines = [f'"{key}": {packed(value)}' for key, value in plain.items()]
        weights = [f' "{kind}": {packed(parts.tolist())}' for kind, parts in self.weights.items()]
        text = "{\n" + ",\n".join([*lines, '"weights": {\n' + ",\n".join(weights) + "\n}"]) + "\n}\n"
        if (size := len(text.encode())) > LARGEST:
            raise UserError(f"these maps take {size:,} bytes, and a file of them may have {LARGEST:,}: take a shorter "
                            "sentence", Exit.DATA)
        return text

    def alignment(self) -> Iterator[tuple[str, str, float]]:
        """Yield each target token, the source token it attends to most, and the weight, over all layers and heads."""
        mean = self.weights["cross"].mean((0, 1)) / SCALE  # --> [T, S]
        source, target = shown(self.source), shown(self.target)
        for token, row in zip(target, mean, strict=True):
            yield token, source[row.argmax()], float(row.max())


def shown(tokens: Sequence[str]) -> list[str]:
    """Write tokens so that each can be read: one that continues a word begins with a hyphen."""
    texts = []
    for place, token in enumerate(tokens):
        within = place > 0 and not token.startswith(" ") and token not in (BOS, EOS) and tokens[place - 1] != BOS
        text = token.strip() or "…"  # a part of a letter, or white space
        printable = text if text.isprintable() else ascii(text)[1:-1]
        texts.append("-" * (within and printable[0].isalnum()) + printable)
    return texts


def read(path: Path) -> AttentionMaps:
    """Read what `AttentionMaps.json` wrote. Errors: `UserError` naming the file and what is wrong."""
    try:
        content = path.read_bytes()
        if len(content) > LARGEST:
            raise UserError(f"{path}: {len(content):,} bytes, and a file of attention maps may have {LARGEST:,}")
        values = json.loads(content)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return AttentionMaps.parse(values, str(path))


def read_all(folder: Path) -> dict[str, AttentionMaps]:
    """Read every file of a folder, by its name without .json; a missing folder has none."""
    return {path.stem: read(path) for path in sorted(folder.glob("*.json"))}

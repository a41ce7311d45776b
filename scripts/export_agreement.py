"""Tell how often an export translates as its run does, and how far apart they are where they differ.

    .venv/bin/python scripts/export_agreement.py runs/RUN exported/ct2 exported/hf --src test.en --ref test.de

Each difference comes with a gap: by how many nats, in the run's own fp32, the run's choice is likelier than the
export's. For greedy search it is that of the first token that differs; of a beam, that of the whole outputs, and it is
negative where the export found the likelier one.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minitx.cli.progress import Meter
from minitx.utils.console import Console
from minitx.utils.tables import markdown

NEAR_TIE = 1e-3  # nats: fp32 sums of some hundred terms differ by less than a hundredth of it
BATCH = 64  # sentences searched together
BEAMS = (1, 5)
Ids = list[list[int]]


@dataclass(frozen=True)
class Agreement:
    """How an export's outputs compare with the run's, for one size of beam."""

    export: str
    beam_size: int
    sentences: int
    equal: int
    near_ties: int
    gaps: list[float]  # of those that differ, sorted
    bleu: float
    own_bleu: float
    megabytes: float

    def row(self) -> list[str]:
        """Return the cells of a table."""
        others = self.sentences - self.equal - self.near_ties
        widest = max(self.gaps, key=abs, default=0.0)
        return [self.export, str(self.beam_size), f"{100 * self.equal / self.sentences:.2f}", str(self.near_ties),
                str(others), f"{widest:.2g}", f"{self.bleu:.2f}", f"{self.own_bleu:.2f}", f"{self.megabytes:,.1f}"]


HEAD = ["export", "beam", "equal, %", "near-ties", "others", "widest gap, nats", "BLEU", "BLEU of the run", "MB"]


def main() -> None:
    """Compare, print a table, and store all gaps if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory of a training")
    parser.add_argument("exports", type=Path, nargs="+", metavar="DIR", help="folders that minitx export made of it")
    parser.add_argument("--src", type=Path, required=True, metavar="FILE", help="source sentences, one a line")
    parser.add_argument("--ref", type=Path, required=True, metavar="FILE", help="their translations")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write each gap")
    args = parser.parse_args()
    found = compare(args.run, args.exports, args.src, args.ref, Console())
    if args.output is not None:
        args.output.write_text(json.dumps([vars(one) for one in found], indent=1) + "\n", encoding="utf-8")
    print(markdown(HEAD, [one.row() for one in found]))


def compare(run_dir: Path, exports: Sequence[Path], src: Path, ref: Path, console: Console) -> list[Agreement]:
    """Search with the run and with each export, greedily and with a beam without penalty, under the same limits."""
    from minitx.cli.streams import read_pairs
    from minitx.evaluation.metrics import score
    from minitx.serving.engine import load

    sources, references = read_pairs(src, ref)
    translator = load([run_dir], "cpu", None)
    decode, pair = translator.decode, translator.tokenizers
    ids = [source[:decode.max_source_length - 1] for source in pair.src.encode_batch(sources)]
    limits = [round((len(source) + 1) * decode.max_length_ratio) + decode.max_length_extra for source in ids]
    found = []
    for beam_size in BEAMS:
        own = outputs(translator.backend, ids, limits, beam_size, console)
        own_bleu = score(pair.tgt.decode_batch(own), references).bleu
        for folder in exports:
            theirs = outputs(open_export(folder), ids, limits, beam_size, console)
            differ = [i for i, (one, other) in enumerate(zip(own, theirs, strict=True)) if one != other]
            gaps = sorted(gap(translator.backend, ids[i], own[i], theirs[i], beam_size) for i in differ)
            near = sum(abs(one) < NEAR_TIE for one in gaps)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found.append(Agreement(folder.name, beam_size, len(ids), len(ids) - len(differ), near, gaps,
                                   score(pair.tgt.decode_batch(theirs), references).bleu, own_bleu, size / 1e6))
    return found


def outputs(backend: Any, sources: Ids, limits: list[int], beam_size: int, console: Console) -> Ids:
    """Search for each source, longest first. --> ids without EOS, in the order of the sources"""
    from minitx.decoding.backend import SearchOptions

    order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    found: dict[int, list[int]] = {}
    meter = Meter(console)
    with backend.session():
        for start in range(0, len(order), BATCH):
            rows = order[start:start + BATCH]
            best = backend.search([sources[i] for i in rows], [limits[i] for i in rows],
                                  SearchOptions(beam_size, 0.0, scored=beam_size > 1))
            found |= {i: hypotheses[0].ids for i, hypotheses in zip(rows, best, strict=True)}
            meter(len(found), len(sources))
    meter.close()
    return [found[i] for i in range(len(sources))]


def open_export(folder: Path) -> Any:
    """Return a backend of an exported folder."""
    from minitx.export.manifest import read_manifest
    from minitx.serving.engine import load

    manifest = read_manifest(folder)
    return HuggingFace(folder) if manifest.format == "huggingface" else load([folder], "cpu", None).backend


class HuggingFace:
    """transformers' own model and search, as far as this comparison needs a backend."""

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        self.model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        self.session = torch.inference_mode

    def search(self, sources: Ids, limits: list[int], options: Any) -> list[list[Any]]:
        """Search all up to the longest limit; longer outputs of greedy search are cut, those of a beam found again."""
        found = self._generate(sources, max(limits), options.beam_size)
        if options.beam_size > 1:
            for i, limit in enumerate(limits):
                if len(found[i]) >= limit:
                    found[i] = self._generate([sources[i]], limit, options.beam_size)[0]
        from minitx.decoding.backend import Hypothesis

        return [[Hypothesis(ids[:limit], 0.0, 0.0)] for ids, limit in zip(found, limits, strict=True)]

    def _generate(self, sources: Ids, limit: int, beam_size: int) -> Ids:
        import torch

        longest = max(map(len, sources)) + 1
        rows = torch.tensor([[*source, 2, *[0] * (longest - len(source) - 1)] for source in sources])
        found = self.model.generate(input_ids=rows, attention_mask=(rows != 0).long(), max_length=limit + 1,
                                    num_beams=beam_size, length_penalty=0.0)
        return [[id_ for id_ in row[1:] if id_ not in (0, 2)] for row in found.tolist()]


def gap(backend: Any, source: list[int], own: list[int], theirs: list[int], beam_size: int) -> float:
    """Return by how many nats the run prefers its own output, up to the first token that differs if it is greedy."""
    log_probs = partial(token_log_probs, backend.models[0], source)
    if beam_size > 1:
        return sum(log_probs(own)) - sum(log_probs(theirs))
    at = next((t for t, (one, other) in enumerate(zip(own, theirs, strict=False)) if one != other),
              min(len(own), len(theirs)))
    return log_probs(own)[at] - log_probs(theirs)[at]


def token_log_probs(model: Any, source: list[int], target: list[int]) -> list[float]:
    """Return the log-probability of each target token, and of EOS behind them."""
    import torch

    from minitx.data.batch import collate

    batch = collate([source], [target], pad_id=0, bos_id=1, eos_id=2)
    with torch.inference_mode():
        logits = model.project(model(batch.src, batch.tgt)[:batch.n_tokens]).double()
    found: list[float] = logits.log_softmax(-1).gather(1, batch.labels[:batch.n_tokens, None])[:, 0].tolist()
    return found


if __name__ == "__main__":
    main()

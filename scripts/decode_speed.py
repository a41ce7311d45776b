"""Search beside other engines, in turns: milliseconds a sentence, every output as long as a reference.

    python scripts/decode_speed.py RUN --text test.en test.de --ct2 FOLDER --hf FOLDER --minitx here HEAD~9

RUN: a run directory, of any family; FOLDER: what `minitx export RUN` made of it. `--minitx` names revisions of this
repository, `here` = the work tree. Each engine is a process of its own, which waits while another works. All engines
get the same batches of the test set, sentences of like length together, and write as many tokens for each: as many as
the references of its batch have in the mean, ends of sentences forbidden until then and forced there. So engines do the
same work whatever they would say. The first round is dropped. Results are medians over rounds, written after each case.
"""

import argparse
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

ROOT = Path(__file__).parents[1]
CASES = [(beam, batch) for beam in (1, 5) for batch in (1, 16, 64, 256)]
SENTENCES = {1: 24, 16: 96, 64: 256, 256: 512}  # a round of a batch size translates so many, spread over the lengths
Search = Callable[[list[list[int]], int, int], list[int]]  # sources without EOS, length, beam size --> lengths written


def main() -> None:
    """Measure, and print a table."""
    options = parse()
    if options.worker:
        serve(options)
        return
    batches, results = list(forced_batches(options)), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        engines = {name: Engine(name, options, Path(folder)) for name in names(options)}
        try:
            for beam, batch in options.cases:
                rounds = [measure(engines, batches, beam, batch) for _ in range(1 + options.rounds)][1:]
                row = {name: median(found[name] for found in rounds) for name in engines}
                results.append({"beam": beam, "batch": batch, "ms_a_sentence": row, "rounds": rounds})
                figures = ", ".join(f"{name} {ms:.2f} ms" for name, ms in row.items())
                print(f"beam {beam}, batch {batch:>3}: {figures}", flush=True)
                found = {"threads": options.threads, "clock": options.clock, "cases": results}
                Path(options.out).write_text(json.dumps(found, indent=1) + "\n")
        finally:
            for engine in engines.values():
                engine.close()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--text", required=True, nargs=2, metavar=("SOURCE", "REFERENCE"), help="plain or .gz")
    parser.add_argument("--ct2", help="measure CTranslate2, in fp32 and in int8")
    parser.add_argument("--hf", help="measure transformers' generate")
    parser.add_argument("--minitx", nargs="*", default=["here"])
    parser.add_argument("--precisions", nargs="*", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", type=lambda text: tuple(map(int, text.split("x"))), default=CASES,
                        metavar="BEAMxBATCH")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that is not quiet")
    parser.add_argument("--out", default="decode_speed.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def names(options: argparse.Namespace) -> list[str]:
    """Name the engines."""
    ours = [f"minitx {revision} {precision}" for revision in options.minitx for precision in options.precisions]
    return [*ours, *(["ct2 float32", "ct2 int8"] if options.ct2 else []), *(["hf"] if options.hf else [])]


def forced_batches(options: argparse.Namespace) -> Iterator[tuple[int, list[list[list[int]]], list[int]]]:
    """Yield batch size, its batches of sources, longest first, and how long each batch's outputs will be."""
    sys.path.insert(0, str(ROOT / "src"))
    import minitx

    tokenizers = minitx.load(options.run).tokenizers
    src, tgt = (side.encode_batch(read_lines(path))
                for side, path in zip((tokenizers.src, tokenizers.tgt), options.text, strict=True))
    rows = sorted(range(len(src)), key=lambda row: -len(src[row]))
    for batch in sorted({batch for _, batch in options.cases}):
        whole = [rows[i:i + batch] for i in range(0, len(rows) - batch + 1, batch)] or [rows]
        count = max(1, min(len(whole), SENTENCES.get(batch, batch) // batch))
        chosen = [whole[(2 * i + 1) * len(whole) // (2 * count)] for i in range(count)]
        yield (batch, [[src[row] for row in part] for part in chosen],
               [max(2, round(sum(len(tgt[row]) + 1 for row in part) / len(part))) for part in chosen])


def read_lines(path: str) -> list[str]:
    """Read a text."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def measure(engines: "dict[str, Engine]", batches: Sequence[tuple[int, list[list[list[int]]], list[int]]], beam: int,
            batch: int) -> dict[str, float]:
    """Let each engine translate each batch before the next is begun. --> milliseconds a sentence"""
    sources, lengths = next((s, t) for size, s, t in batches if size == batch)
    seconds = dict.fromkeys(engines, 0.0)
    for part, length in zip(sources, lengths, strict=True):
        for name, engine in engines.items():
            seconds[name] += engine.search(part, length, beam)
    return {name: 1e3 * total / sum(map(len, sources)) for name, total in seconds.items()}


class Engine:
    """A process that searches when it is asked to."""

    def __init__(self, name: str, options: argparse.Namespace, folder: Path) -> None:
        self.name = name
        kind, *how = name.split()
        source = ROOT
        if kind == "minitx" and how[0] != "here":
            source = folder / how[0]
            archive = subprocess.run(["git", "-C", str(ROOT), "archive", how[0], "src", "conf"], stdout=subprocess.PIPE,
                                     check=True).stdout
            with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
                packed.extractall(source, filter="data")
        command = [sys.executable, __file__, options.run, "--worker", name, "--threads", str(options.threads),
                   "--clock", options.clock, "--text", *options.text]
        command += [f"--{flag}={getattr(options, flag)}" for flag in ("ct2", "hf") if getattr(options, flag)]
        environ = os.environ | {"PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": str(options.threads),
                                "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def search(self, sources: list[list[int]], length: int, beam: int) -> float:
        """Return the seconds that it took. Errors: RuntimeError if an output has another length"""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([sources, length, beam]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended")
        seconds, lengths = json.loads(answer)
        if set(lengths) != {length}:
            raise RuntimeError(f"{self.name} wrote {sorted(set(lengths))} tokens, not {length}")
        return float(seconds)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(options: argparse.Namespace) -> None:
    """Answer each line of the standard input: sources, length and beam size, by seconds and lengths."""
    answers, sys.stdout = sys.stdout, sys.stderr
    kind, *how = options.worker.split()
    clock = process_time if options.clock == "cpu" else perf_counter
    search = {"minitx": minitx_search, "ct2": ct2_search, "hf": hf_search}[kind](options, *how)
    for line in sys.stdin:
        sources, length, beam = json.loads(line)
        began = clock()
        lengths = search(sources, length, beam)
        print(json.dumps([clock() - began, lengths]), file=answers, flush=True)


def minitx_search(options: argparse.Namespace, _: str, precision: str) -> Search:
    """EOS is passed as the pad, which search never chooses."""
    import torch

    import minitx
    from minitx.data.batch import collate_src
    from minitx.decoding.search import beam, greedy
    from minitx.models import precision as formats

    torch.set_num_threads(options.threads)
    translator = minitx.load(options.run)
    model = getattr(translator, "model", None) or translator.backend.model
    model.eval()
    tokenizers = translator.tokenizers
    dtype = torch.bfloat16 if precision == "bf16" else None
    kept = (formats.Casts(),) if hasattr(formats, "Casts") else ()

    def search(sources: list[list[int]], length: int, size: int) -> list[int]:
        src = collate_src(sources, pad_id=tokenizers.src.pad_id, eos_id=tokenizers.src.eos_id)
        never = tokenizers.tgt.pad_id
        how: dict[str, Any] = {"bos_id": tokenizers.tgt.bos_id, "eos_id": never, "pad_id": never,
                               "max_lengths": torch.full((len(sources),), length)}
        with formats.computing_in(dtype, *kept):
            if size == 1:
                return [len(ids) for ids in greedy(model, src, **how)]
            found = beam(model, src, beam_size=size, length_penalty=0.0, **how)
        return [len(hypotheses[0].ids) for hypotheses in found]

    return search


def ct2_search(options: argparse.Namespace, precision: str) -> Search:
    """All of a batch at once, as the others do."""
    import ctranslate2  # type: ignore[import-untyped]

    model = ctranslate2.Translator(options.ct2, device="cpu", compute_type=precision, intra_threads=options.threads,
                                   inter_threads=1)
    vocabulary = next(path for name in ("source_vocabulary.json", "shared_vocabulary.json")
                      if (path := Path(options.ct2, name)).is_file())
    names = json.loads(vocabulary.read_text(encoding="utf-8"))

    def search(sources: list[list[int]], length: int, size: int) -> list[int]:
        found = model.translate_batch([[names[i] for i in ids] for ids in sources], beam_size=size, length_penalty=0,
                                      min_decoding_length=length, max_decoding_length=length, max_batch_size=0)
        return [len(result.hypotheses[0]) for result in found]

    return search


def hf_search(options: argparse.Namespace) -> Search:
    """`generate`, with a cache."""
    import torch
    from transformers import AutoModelForSeq2SeqLM  # type: ignore[attr-defined]

    torch.set_num_threads(options.threads)
    model = AutoModelForSeq2SeqLM.from_pretrained(options.hf).eval()
    cfg = model.config

    @torch.inference_mode()
    def search(sources: list[list[int]], length: int, size: int) -> list[int]:
        longest = max(map(len, sources)) + 1
        ids = torch.full((len(sources), longest), cfg.pad_token_id)
        for row, source in zip(ids, sources, strict=True):
            row[:len(source) + 1] = torch.tensor([*source, cfg.eos_token_id])
        found = model.generate(input_ids=ids, attention_mask=ids != cfg.pad_token_id, num_beams=size, do_sample=False,
                               min_new_tokens=length, max_new_tokens=length, length_penalty=0.0)
        return [found.shape[1] - 1] * len(sources)

    return search


if __name__ == "__main__":
    main()

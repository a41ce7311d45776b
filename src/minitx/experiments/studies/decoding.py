"""What the next token of a translation costs, the longer the translation is already: time, and bytes that are carried.

One sentence is translated, one hypothesis at a time, its source always as long. What a family carries from token to
token is a state of fixed size or a cache that grows. Beyond `READ` tokens a cache is not filled token by token: what it
holds by then is repeated, since neither time nor bytes depend on the numbers in it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from minitx.config.schema import Config
from minitx.data.batch import Packed, pack
from minitx.data.tokenizer import BOS_ID, PAD_ID
from minitx.experiments.fits import Claim, Interval, judge
from minitx.experiments.studies.growth import (
    VOCAB,
    Point,
    family_task,
    fit_growth,
    growth_text,
    sentence_batch,
)
from minitx.models.base import DecodeState, Seq2Seq, evaluating
from minitx.models.cache import Cache
from minitx.models.precision import computing_in
from minitx.profiling.peak import synchronize
from minitx.training.build import choose_device, choose_precision
from minitx.utils.console import Console
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

READ = 256  # tokens that are read one by one; no window may be as wide
STEPS = 8  # tokens that one time is the mean of
ALIKE = (0.67, 1.5)  # a step takes as long as another if it takes between so many times as long
KIB = 2**10


@dataclass(frozen=True)
class Sizes:
    """Which model, and how long the translation is when the next token is timed."""

    d_model: int = 64
    source: int = 64  # tokens of the source
    shortest: int = 64
    longest: int = 1_024
    repeats: int = 3
    translation: int = 64  # tokens of a translation that is made with a cache and without one

    @property
    def lengths(self) -> list[int]:
        """The lengths, each twice the one before."""
        return [self.shortest << i for i in range((self.longest // self.shortest).bit_length())]


SIZES = {"smoke": Sizes(), "full": Sizes(d_model=256, longest=16_384, repeats=7)}


@dataclass(frozen=True, eq=False)
class Decoder:
    """A model that translates one sentence; `first` is its state before the first token."""

    name: str
    model: Seq2Seq
    src: Packed
    memory: Tensor
    first: DecodeState

    @property
    def token(self) -> Tensor:
        """Any token, for the one hypothesis. [1]"""
        return torch.full((1,), BOS_ID, device=self.memory.device)

    def step(self, state: DecodeState) -> DecodeState:
        """Read a token."""
        return self.model.step(self.token, state)[1]

    def state_at(self, length: int) -> DecodeState:
        """Return the state after so many tokens."""
        return state_at(self.first, self.step, length, READ)


def state_at(first: DecodeState, step: Callable[[DecodeState], DecodeState], length: int, read: int) -> DecodeState:
    """Return the state after so many tokens.

    first: before any; step: reads one; read: how many are read one by one, at most: at least 2 more than a window has
    """
    before = state = first
    for _ in range(min(length, read)):
        before, state = state, step(state)
    if length <= read:
        return state
    if state.cache is None or before.cache is None:
        return replace(state, position=length)
    positions = lengthened(before.cache.positions, state.cache.positions, length - read)
    return replace(state, cache=Cache.holding(positions.clone(), state.cache.window), position=length)


def lengthened(before: Tensor, after: Tensor, more: int) -> Tensor:
    """Return what a part of a state becomes after some tokens more. before, after: the last token that was read"""
    grown = [dim for dim, (old, new) in enumerate(zip(before.shape, after.shape, strict=True)) if old != new]
    if not grown:
        return after
    (dim,) = grown
    places = torch.arange(after.shape[dim] + more, device=after.device) % after.shape[dim]
    return after.index_select(dim, places)


def build_decoder(name: str, cfg: Config, sizes: Sizes, device: torch.device, precision: str) -> Decoder:
    """Build a family's model, and let it read the source. Errors: ValueError for a window that `READ` does not fill"""
    if (window := getattr(cfg.model, "window", None)) is not None and window >= READ:
        raise ValueError(f"a window of {window} is not full after {READ} tokens")
    model = family_task(cfg, sizes.d_model, precision).model.to(device)
    src = sentence_batch(sizes.source).src.to(device)
    with evaluating(model):
        memory = model.encode(src)
        return Decoder(name, model, src, memory, model.init_state(memory, src))


def measure(families: Mapping[str, Config], sizes: Sizes, console: Console) -> dict[str, Any]:
    """Measure families side by side, each length in turn."""
    cfg = next(iter(families.values()))
    device = choose_device(cfg.trainer)
    precision = choose_precision(cfg.trainer, device)
    dtype = torch.bfloat16 if precision == "bf16-mixed" else None
    progress = Progress(console, float(len(families) * sum(sizes.lengths)))
    with torch.inference_mode(), computing_in(dtype):
        decoders = [build_decoder(name, family, sizes, device, precision) for name, family in families.items()]
        points: dict[str, list[dict[str, Any]]] = {decoder.name: [] for decoder in decoders}
        for length in sizes.lengths:
            for name, point in measure_length(decoders, length, sizes.repeats):
                points[name].append(point)
                progress(f"{name}, {length:,} tokens", length)
        console.live("translating with and without a cache ...")
        cache = compare_cache(decoders[0], sizes)
    found = {decoder.name: {"points": points[decoder.name], "source_bytes": n_bytes(decoder.first.sentences),
                            "a_token": added(points[decoder.name]), "time": fit_growth(points[decoder.name], "seconds")}
             for decoder in decoders}
    return {"vocab_size": VOCAB, "families": found, "cache": cache,
            "claims": [asdict(claim) for claim in claims(found, cache)]}


def measure_length(decoders: list[Decoder], length: int, repeats: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Time the token after so many, family by family in turn. Yields each family's result."""
    states = [decoder.state_at(length) for decoder in decoders]
    seconds: list[list[float]] = [[] for _ in decoders]
    for _ in range(1 + repeats):
        for decoder, state, times in zip(decoders, states, seconds, strict=True):
            with evaluating(decoder.model):
                ready = decoder.step(state)  # with room for what comes
                times.append(timed(partial(read_on, decoder, ready), decoder.memory.device) / STEPS)
    for decoder, state, times in zip(decoders, states, seconds, strict=True):
        yield decoder.name, {"length": length, "seconds": median(times[1:]), "fastest_s": min(times[1:]),
                             "slowest_s": max(times[1:]), "state_bytes": n_bytes(state.carried)}


def read_on(decoder: Decoder, state: DecodeState) -> None:
    """Read `STEPS` tokens."""
    for _ in range(STEPS):
        state = decoder.step(state)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that it takes."""
    synchronize(device)
    began = perf_counter()
    work()
    synchronize(device)
    return perf_counter() - began


def n_bytes(tensors: list[Tensor]) -> int:
    """Return the bytes that tensors take, each once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def added(points: list[dict[str, Any]]) -> float:
    """Return the bytes that a token adds to the state, from the shortest length to the longest."""
    first, last = points[0], points[-1]
    more: float = (last["state_bytes"] - first["state_bytes"]) / (last["length"] - first["length"])
    return more


# --- a cache, and none


def compare_cache(decoder: Decoder, sizes: Sizes) -> dict[str, Any]:
    """Time one translation token by token, with the states of earlier tokens kept and with all of them made anew."""
    ways = {"kept": with_cache, "anew": without_cache}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with evaluating(decoder.model):
        for _ in range(1 + sizes.repeats):
            for name, way in ways.items():
                seconds[name].append(timed(partial(way, decoder, sizes.translation), decoder.memory.device))
    return {"family": decoder.name, "tokens": sizes.translation,
            **{name: {"seconds": median(times[1:]), "fastest_s": min(times[1:]), "slowest_s": max(times[1:])}
               for name, times in seconds.items()}}


def with_cache(decoder: Decoder, tokens: int) -> list[int]:
    """Translate greedily, to this many tokens whatever they are."""
    state, token, translated = decoder.first, decoder.token, list[int]()
    for _ in range(tokens):
        logits, state = decoder.model.step(token, state)
        token = logits.argmax(-1)
        translated.append(int(token))
    return translated


def without_cache(decoder: Decoder, tokens: int) -> list[int]:
    """Do the same, but read all tokens so far at each step."""
    translated = list[int]()
    for _ in range(tokens):
        tgt = pack([[BOS_ID, *translated]], PAD_ID).to(decoder.memory.device)
        features = decoder.model.features(decoder.memory, decoder.src, tgt)
        translated.append(int(decoder.model.project(features[tgt.n_tokens - 1]).argmax(-1)))
    return translated


# --- what follows


def claims(found: Mapping[str, Any], cache: Mapping[str, Any]) -> Iterator[Claim]:
    """Decide what is commonly said about decoding. found: of each family; cache: as `compare_cache` returns it"""
    transformer = found["transformer"]
    for what, name in (("an LSTM", "lstm_attention"), ("a linear RNN", "linear_rnn_attention"),
                       ("a Transformer with a window", "transformer_window")):
        yield keeps_size(f"what {what} carries from token to token does not grow", found[name]).predicting("0")
        yield keeps_time(f"the next token of {what} takes as long, however long the translation",
                         found[name]).predicting("1.0")
    added_kib = transformer["a_token"] / KIB
    yield judge("each token adds to what a Transformer carries, in KiB", added_kib, (added_kib, added_kib),
                (0.01, inf)).predicting("4 at width 256: keys and values of two layers, 4 bytes a number")
    yield slower("the longer the translation, the longer a Transformer's next token takes: at least twice as long at "
                 "the longest as at the shortest", transformer["points"], (2, inf)).predicting(
        "25 at width 256 and 16,384 tokens: a cache of 67 MB is read and copied, at about 8 GB/s")
    kept, anew = cache["kept"], cache["anew"]
    yield judge(f"a cache makes a Transformer's translation of {cache['tokens']} tokens 2 to 3 times as fast",
                anew["seconds"] / kept["seconds"], (anew["fastest_s"] / kept["slowest_s"],
                                                    anew["slowest_s"] / kept["fastest_s"]), (2, 3)).predicting(
        "1.5: so few tokens at once take a processor little longer than one")


def keeps_size(claim: str, family: Mapping[str, Any]) -> Claim:
    """Decide whether a token adds no byte."""
    return judge(claim, family["a_token"], (family["a_token"], family["a_token"]), (0, 0))


def keeps_time(claim: str, family: Mapping[str, Any]) -> Claim:
    """Decide whether a step after the most tokens takes as long as one after the fewest."""
    return slower(claim, family["points"], ALIKE)


def slower(claim: str, points: list[Point], bounds: Interval) -> Claim:
    """Decide how many times as long a step takes after the most tokens as after the fewest, from their extremes."""
    first, last = points[0], points[-1]
    return judge(claim, last["seconds"] / first["seconds"],
                 (last["fastest_s"] / first["slowest_s"], last["slowest_s"] / first["fastest_s"]), bounds)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield each point, how time grows, and what a cache is worth. found: as `measure` returns it"""
    rows, fits = [["", "tokens", "ms", "from", "to", "KiB carried"]], list[tuple[str, str]]()
    for name, family in found["families"].items():
        for point in family["points"]:
            times_ms = (f"{1e3 * point[key]:,.2f}" for key in ("seconds", "fastest_s", "slowest_s"))
            rows.append([name, f"{point['length']:,}", *times_ms, f"{point['state_bytes'] / KIB:,.1f}"])
        fits.append((name, f"{family['a_token']:,.0f} bytes more with each token, and "
                           f"{family['source_bytes'] / KIB:,.1f} KiB of the source"))
        if family["time"] is not None:
            fits.append((name, growth_text(family["time"], "time")))
    yield from aligned(rows)
    yield from aligned(fits, "<")
    cache = found["cache"]
    yield (f"{cache['family']}, {cache['tokens']} tokens: {1e3 * cache['kept']['seconds']:,.1f} ms with a cache, "
           f"{1e3 * cache['anew']['seconds']:,.1f} ms without")

"""Search with anything that can `encode`, `init_state` and `step`: greedy, beam, sampling.

- a length counts generated tokens, EOS included; at `max_lengths[b]` a hypothesis is finished as it stands, without EOS
- BOS and pad are never chosen; of equal logits the lowest id wins, of equal hypotheses the lowest parent
- sentences share a batch and nothing else: each has its own limit and end, and leaves the batch soon after
- the host waits for the device once a step
- `constraints` say what may be chosen; log-probabilities are the model's own all the same
- the logits that `step` returns are overwritten

B sentences, K hypotheses per sentence, V vocabulary, C candidate tokens per hypothesis, t tokens so far, N rows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from minitx.data.batch import Packed
from minitx.decoding.arguments import as_count, as_number
from minitx.decoding.backend import Hypothesis
from minitx.decoding.constraints import Constraints
from minitx.models.precision import at_least_fp32, finest

DROP_FRACTION = 1 / 8  # finished sentences that make it worth copying the state of the others
GROUP = 64  # ids compared together when the best are searched for
CACHED = 2**18  # logits of which the best are searched for at a time
FREE_CHOICE = Constraints()


class Searchable(Protocol):
    """What search needs: `Seq2Seq`, an ensemble, or whatever else steps through a target, with a state of its own."""

    def encode(self, src: Packed) -> Any:
        """Read the source. --> memory"""

    def init_state(self, memory: Any, src: Packed, beam_size: int = 1) -> Any:
        """Prepare decoding of K hypotheses a sentence. --> a state with `select` and `reorder` as in `DecodeState`"""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read one token a hypothesis. tokens: [B*K] --> logits [B*K, V], next state"""


def greedy(model: Searchable, src: Packed, *, bos_id: int, eos_id: int, max_lengths: Tensor,
           pad_id: int | None = None, constraints: Constraints = FREE_CHOICE) -> list[list[int]]:
    """Take the likeliest token at each step. max_lengths: [B], >= 1 --> ids without EOS"""
    return _unroll(model, src, lambda logits, *_: _likeliest(logits), bos_id, eos_id, pad_id, max_lengths, constraints)


def sample(model: Searchable, src: Packed, *, bos_id: int, eos_id: int, max_lengths: Tensor, seeds: Sequence[int],
           pad_id: int | None = None, constraints: Constraints = FREE_CHOICE, temperature: float = 1.0,
           top_k: int = 0) -> list[list[int]]:
    """Draw each token from softmax(logits / temperature), from the `top_k` likeliest alone if not 0.

    seeds: one a sentence; its draws depend on nothing else. Errors: TypeError and ValueError for a temperature that is
    not greater than 0 and a top_k below 0
    """
    temperature, top_k = as_number(temperature, "temperature", positive=True), as_count(top_k, "top_k", least=0)
    device, longest = src.ids.device, int(max_lengths.max())
    draws = np.stack([np.random.Generator(np.random.PCG64(seed)).random(longest) for seed in seeds])
    uniform = torch.from_numpy(draws).to(finest(device)).to(device)  # --> [B, longest], in [0, 1)

    def draw(logits: Tensor, sentences: Tensor, t: int) -> Tensor:
        logits = at_least_fp32(logits) / temperature  # --> [N, V]
        values, ids = logits.topk(min(top_k, logits.shape[-1])) if top_k else (logits, None)  # --> [N, top_k] each
        sums = values.softmax(-1, dtype=uniform.dtype).cumsum(-1)
        drawn = torch.searchsorted(sums, uniform[sentences, t, None] * sums[:, -1:], right=True)  # --> [N, 1]
        drawn = drawn.clamp(max=values.shape[-1] - 1)  # from a model gone nan
        return (drawn if ids is None else ids.gather(1, drawn))[:, 0]

    return _unroll(model, src, draw, bos_id, eos_id, pad_id, max_lengths, constraints)


@torch.inference_mode()
def _unroll(model: Searchable, src: Packed, choose: Callable[[Tensor, Tensor, int], Tensor], bos_id: int, eos_id: int,
            pad_id: int | None, max_lengths: Tensor, constraints: Constraints) -> list[list[int]]:
    """Extend one hypothesis a sentence until EOS or its limit. choose: logits [N, V], sentences [N], t --> ids [N]"""
    device, limits, longest = src.ids.device, max_lengths.to(src.ids.device), int(max_lengths.max())
    banned = _banned(bos_id, pad_id, device)
    sentences = torch.arange(len(limits), device=device)  # the one that each row of the shrinking batch decodes
    tokens, alive = torch.full_like(sentences, bos_id), torch.ones_like(sentences, dtype=torch.bool)  # --> [N] each
    ids = torch.full((len(limits), longest), eos_id, device=device)  # --> [B, longest]
    state = model.init_state(model.encode(src), src)
    for t in range(longest):
        logits, state = model.step(tokens, state)  # --> [N, V]
        logits = logits.index_fill_(1, banned, -inf)
        tokens = choose(constraints.apply(logits, ids[sentences, :t]) if constraints else logits, sentences, t)  # [N]
        ids[sentences, t] = tokens
        alive = alive & (tokens != eos_id) & (t + 1 < limits)  # --> [N]
        keep = _kept(n_alive := int(alive.sum()), len(alive))
        if not n_alive:
            break
        if keep < len(alive):
            staying = (~alive).sort(stable=True).indices[:keep]
            state, constraints = state.select(staying), constraints.select(staying)
            sentences, tokens, alive, limits = (x[staying] for x in (sentences, tokens, alive, limits))
    return [_until(eos_id, row[:limit]) for row, limit in zip(ids.tolist(), max_lengths.tolist(), strict=True)]


@torch.inference_mode()
def beam(model: Searchable, src: Packed, *, bos_id: int, eos_id: int, max_lengths: Tensor,
         beam_size: int, length_penalty: float, n_best: int = 1, pad_id: int | None = None,
         constraints: Constraints = FREE_CHOICE) -> list[list[Hypothesis]]:
    """Search with K hypotheses a sentence. --> up to n_best of them, best first (Wu et al. 2016, section 7)

    Each of K slots holds one hypothesis. A finished one keeps its slot, so a beam of 1 is greedy search; candidates
    compete for the other slots. A sentence is done when nothing unfinished can reach its n_best-th finished score any
    more: a log-probability only falls and a penalty only grows, so log_prob / penalty(limit) is an upper bound.
    Errors: TypeError and ValueError as in `check_beam`.
    """
    beam_size, length_penalty, n_best = check_beam(beam_size, length_penalty, n_best)
    device, longest = src.ids.device, int(max_lengths.max())
    limits = max_lengths.to(device)[:, None]  # --> [B, 1]
    banned = _banned(bos_id, pad_id, device)
    sentences, slots = torch.arange(len(limits), device=device), torch.arange(beam_size, device=device)
    ids = torch.full((len(limits), beam_size, 1), bos_id, device=device)  # --> [B, K, t], BOS first
    log_probs = torch.zeros(len(limits), beam_size, device=device).masked_fill(slots > 0, -inf)  # all start as one
    lengths, finished = torch.zeros_like(ids[..., 0]), torch.zeros_like(ids[..., 0], dtype=torch.bool)  # --> [B, K]
    state = model.init_state(model.encode(src), src, beam_size)
    results: list[list[Hypothesis]] = [[] for _ in range(len(limits))]

    for t in range(1, longest + 1):
        logits, state = model.step(ids[..., -1].flatten(), state)  # --> [B*K, V]
        constrain = partial(constraints.apply, written=ids[..., 1:].flatten(0, 1)) if constraints else None
        gains, continuations = _best(logits, beam_size, banned, constrain)  # --> [B*K, C] each
        C = gains.shape[1]
        candidates = log_probs.masked_fill(finished, -inf)[..., None] + gains.view(-1, beam_size, C)  # --> [B, K, C]
        candidates, order = candidates.flatten(1).sort(dim=1, descending=True, stable=True)  # --> [B, K*C] each
        rank = ((~finished).cumsum(1) - 1).clamp(min=0)  # --> [B, K]: the i-th free slot takes the i-th best candidate
        best, origin = candidates.gather(1, rank), order.gather(1, rank)  # --> [B, K] each

        closed = finished | (best == -inf)  # --> [B, K]
        parents = torch.where(closed, slots, origin // C)  # --> [B, K]
        tokens = torch.where(closed, eos_id, continuations.view(-1, beam_size * C).gather(1, origin))  # --> [B, K]
        ids = torch.cat([ids.gather(1, parents[..., None].expand(-1, -1, t)), tokens[..., None]], dim=2)  # 1 longer
        log_probs, lengths = torch.where(finished, log_probs, best), torch.where(finished, lengths, t)
        finished = finished | ~closed & ((tokens == eos_id) | (t >= limits))

        scores = _score(log_probs, lengths, length_penalty).masked_fill(~finished, -inf)  # --> [B, K]
        upper_bound = _score(log_probs, limits, length_penalty).masked_fill(finished, -inf).amax(1)  # --> [B]
        done = (scores.topk(n_best).values[:, -1] > upper_bound) | (upper_bound == -inf) | (t == longest)  # --> [B]
        *is_done, moved = torch.cat([done, (parents != slots).any()[None]]).tolist()  # the step's one wait
        keep = _kept(len(is_done) - sum(is_done), len(is_done))
        if keep < len(is_done):
            unfinished_first = sorted(range(len(is_done)), key=is_done.__getitem__)
            leaving = torch.tensor(unfinished_first[keep:], device=device)
            columns = (x[leaving].tolist() for x in (sentences, ids[..., 1:], lengths, log_probs, scores))
            for b, *hypotheses in zip(*columns, strict=True):
                results[b] = _ranked(eos_id, *hypotheses)[:n_best]
            if not keep:
                break
            staying = torch.tensor(unfinished_first[:keep], device=device)
            state, constraints = state.select(staying), constraints.select(staying)
            sentences, limits, ids, log_probs, lengths, finished, parents = (
                x[staying] for x in (sentences, limits, ids, log_probs, lengths, finished, parents))
        if moved:
            state = state.reorder((torch.arange(len(ids), device=device)[:, None] * beam_size + parents).flatten())
    return results


def _kept(unfinished: int, sentences: int) -> int:
    """Return how many sentences a batch goes on with, some finished ones among them.

    Sizes recur, since oneDNN makes kernels anew for each: a number is rounded up by an eighth at most.
    """
    step = 1 << max(0, unfinished.bit_length() - 4)
    rounded = -(-unfinished // step) * step
    return sentences if sentences - rounded < DROP_FRACTION * sentences else rounded


def check_beam(beam_size: int, length_penalty: float, n_best: int = 1) -> tuple[int, float, int]:
    """Return the three as plain numbers. Errors: TypeError for other types, ValueError for values out of range."""
    beam_size, n_best = as_count(beam_size, "beam_size"), as_count(n_best, "n_best")
    if n_best > beam_size:
        raise ValueError(f"n_best={n_best}: must be at most beam_size={beam_size}")
    return beam_size, as_number(length_penalty, "length_penalty"), n_best


def _likeliest(logits: Tensor) -> Tensor:
    """Find each row's largest, the first among equals. [N, V] --> [N]

    A CPU finds many maxima at a time, but where they are one by one: it looks for a group of ids, then for the one in
    it. It compares many integers at a time, but bf16 one by one; positive bf16 numbers are ordered as their bits are.
    """
    if logits.device.type != "cpu":
        return logits.max(-1).indices
    if logits.dtype == torch.bfloat16:
        largest = logits.view(torch.int16).max(-1)
        if (largest.values > 0).all():
            return largest.indices
    groups = _in_groups(logits)
    group = groups.amax(2).max(1, keepdim=True).indices  # --> [N, 1]
    within = groups.gather(1, group[..., None].expand(-1, 1, GROUP))[:, 0].max(1).indices  # --> [N]
    return group[:, 0] * GROUP + within


def _best(logits: Tensor, count: int, banned: Tensor,
          constrain: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Find each row's likeliest tokens, lowest id first among equals. logits: [N, V] --> log_probs, ids, both [N, C]

    Ranks by logits, as greedy search does: rounding may make two log-probabilities equal. These are the model's own:
    banned tokens keep their share. The C best lie in the C groups with the largest maxima, so only those are searched:
    as fast as `topk`, which promises no order among equals (frequent in bf16). A CPU takes some rows at a time, so that
    they and what is made of them stay in its cache.
    """
    rows = max(1, CACHED // logits.shape[1])
    if logits.device.type == "cpu" and constrain is None and len(logits) > rows:
        found = [_best(part, count, banned) for part in logits.split(rows)]
        return torch.cat([log_probs for log_probs, _ in found]), torch.cat([ids for _, ids in found])
    log_probs = at_least_fp32(logits).log_softmax(-1)
    logits, count = logits.index_fill_(1, banned, -inf), min(count, logits.shape[1])
    groups = _in_groups(logits if constrain is None else constrain(logits))
    top = _take_max(groups.amax(2), min(count, groups.shape[1]))[1].sort(1).values  # --> [N, C], lowest ids first
    searched = groups.gather(1, top[..., None].expand(-1, -1, GROUP))  # --> [N, C, 64]
    if constrain is not None:  # with nothing left to choose, a group is taken twice: a forced token is one candidate
        searched[:, 1:].masked_fill_((top[:, 1:] == top[:, :-1])[..., None], -inf)
    values, at = _take_max(searched.flatten(1), count)  # --> [N, C] each
    best = top.gather(1, at // GROUP) * GROUP + at % GROUP
    best = best.masked_fill(values == -inf, 0)  # fewer than C tokens are possible
    return log_probs.gather(1, best).masked_fill(values == -inf, -inf), best


def _in_groups(logits: Tensor) -> Tensor:
    """[N, V] --> [N, V/64, 64]; a last group that is not full is filled up with -inf"""
    missing = -logits.shape[1] % GROUP
    groups: Tensor = (pad(logits, (0, missing), value=-inf) if missing else logits).unflatten(1, (-1, GROUP))
    return groups


def _take_max(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Take each row's largest, the first among equals; they are overwritten. [N, L] --> values, indices, both [N, C]"""
    taken = []
    for _ in range(count):
        largest = values.max(1, keepdim=True)
        values.scatter_(1, largest.indices, -inf)
        taken.append(largest)
    return torch.cat([t.values for t in taken], 1), torch.cat([t.indices for t in taken], 1)


def _ranked(eos_id: int, ids: list[list[int]], lengths: list[int], log_probs: list[float],
            scores: list[float]) -> list[Hypothesis]:
    """Order the finished hypotheses of one sentence, best first; equal scores by their ids."""
    slots = zip(ids, lengths, log_probs, scores, strict=True)
    return sorted((Hypothesis(_until(eos_id, row[:length]), log_prob, score)
                   for row, length, log_prob, score in slots if score != -inf), key=lambda h: (-h.score, h.ids))


def _score(log_probs: Tensor, lengths: Tensor, length_penalty: float) -> Tensor:
    return log_probs / ((5 + lengths.to(log_probs.dtype)) / 6) ** length_penalty


def _banned(bos_id: int, pad_id: int | None, device: torch.device) -> Tensor:
    return torch.tensor([bos_id] if pad_id is None else [bos_id, pad_id], device=device)


def _until(eos_id: int, ids: list[int]) -> list[int]:
    return ids[: ids.index(eos_id)] if eos_id in ids else ids

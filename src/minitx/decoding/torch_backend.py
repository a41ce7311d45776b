"""Our own search, over whatever steps: a model of PyTorch, several whose probabilities are averaged, or another's."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import log, nan

import torch
from torch import Tensor

from minitx.data.batch import Batch, collate, collate_src
from minitx.data.tokenizer import BOS_ID, EOS_ID, PAD_ID
from minitx.decoding.backend import Backend, Hypothesis, SearchOptions
from minitx.decoding.constraints import Constraints
from minitx.decoding.ensemble import Ensemble
from minitx.decoding.search import Searchable, beam, greedy, sample
from minitx.models.base import Seq2Seq, evaluating
from minitx.models.precision import Casts, at_least_fp32, computing_in, finest


class SteppingBackend(Backend):
    """Search with anything that can `encode`, `init_state` and `step`."""

    def __init__(self, model: Searchable, device: torch.device | str, max_source_length: int | None,
                 max_target_length: int | None) -> None:
        self.searched, self.device = model, str(device)
        self.max_source_length, self.max_target_length = max_source_length, max_target_length

    def search(self, sources: Sequence[Sequence[int]], limits: Sequence[int],
               options: SearchOptions) -> list[list[Hypothesis]]:
        """Search greedily, with a beam, or by drawing."""
        src = collate_src(sources, pad_id=PAD_ID, eos_id=EOS_ID).to(self.device)
        max_lengths, how = torch.tensor(limits), {"bos_id": BOS_ID, "eos_id": EOS_ID, "pad_id": PAD_ID}
        constraints = Constraints.of(options.prefixes, options.no_repeat_ngram, torch.device(self.device))
        if (draws := options.sampling) is not None:
            ids = sample(self.searched, src, max_lengths=max_lengths, constraints=constraints, seeds=draws.seeds,
                         temperature=draws.temperature, top_k=draws.top_k, **how)
        elif options.beam_size == 1 and not options.scored:
            ids = greedy(self.searched, src, max_lengths=max_lengths, constraints=constraints, **how)
        else:
            return beam(self.searched, src, max_lengths=max_lengths, constraints=constraints, n_best=options.n_best,
                        beam_size=options.beam_size, length_penalty=options.length_penalty, **how)
        return [[Hypothesis(row, nan, nan)] for row in ids]


class TorchBackend(SteppingBackend):
    """Search with a model of PyTorch, or with several over one vocabulary: then with their mean probabilities."""

    def __init__(self, models: Sequence[Seq2Seq], device: torch.device | str = "cpu",
                 precision: str | None = None, *, serves: bool = False) -> None:
        """precision: that of search, as `decode.precision`

        serves: what search makes of the weights, such as other layouts, is kept from text to text, in as much memory as
        they take; else it is made anew for each
        """
        self.casts = Casts() if serves else None
        self.models, self.dtype = tuple(models), None if precision is None else torch.bfloat16
        super().__init__(self.models[0] if len(self.models) == 1 else Ensemble(self.models), device,
                         _least(model.max_source_length for model in models),
                         _least(model.max_target_length for model in models))

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        """Score by forced decoding, in the number format of the weights."""
        batch = collate(sources, targets, pad_id=PAD_ID, bos_id=BOS_ID, eos_id=EOS_ID).to(self.device)
        with computing_in(None, self.casts):
            found: list[float] = log_probs(self.models, batch).tolist()
        return found

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold the models in evaluation mode, and their weights as they were cast for the first batch."""
        with ExitStack() as stack:
            for model in self.models:
                stack.enter_context(evaluating(model))
            stack.enter_context(computing_in(self.dtype, self.casts))
            yield


@torch.inference_mode()
def log_probs(models: Sequence[Seq2Seq], batch: Batch) -> Tensor:
    """Sum each target's log-probabilities, in float64 where the device has it; those of several averaged. --> [B]"""
    found = []
    for model in models:
        logits = model.project(model(batch.src, batch.tgt)[:batch.n_tokens])  # --> [n, V]
        found.append(at_least_fp32(logits).log_softmax(-1).gather(1, batch.labels[:, None])[:, 0])  # --> [n]
    chosen = found[0] if len(found) == 1 else torch.stack(found).logsumexp(0) - log(len(found))
    tokens = chosen.to(finest(chosen.device))
    sentence = torch.repeat_interleave(batch.tgt.lengths, output_size=batch.n_tokens)  # --> [n]
    return tokens.new_zeros(len(batch.tgt.lengths)).index_add_(0, sentence, tokens)


def _least(lengths: Iterable[int | None]) -> int | None:
    return min((length for length in lengths if length is not None), default=None)

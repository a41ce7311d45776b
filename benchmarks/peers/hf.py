"""Hugging Face transformers: Seq2SeqTrainer on a Marian model built from its config."""

from collections import deque
from typing import Any

from benchmarks import work
from benchmarks.work import Job, Meter, Report, longest_first, time_decoding

PACKAGES = ("transformers==5.23.0", "accelerate==1.15.0", "sentencepiece==0.2.3")
PRECISIONS = ("bf16", "fp32")
DECODES_IN = ("bf16", "fp32")
LEARNS_IN = ("bf16",)
SENTENCES = 260  # an update; times 15.8 tokens


def train(job: Job, report: Report) -> None:
    """Train until killed."""
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback, set_seed

    set_seed(1)
    model, meter = _model(), Meter(job, report)
    sources, counts = job.ids(work.TEST, work.SRC), deque[int]()
    pairs = [{"input_ids": [*src, work.EOS], "labels": [*tgt, work.EOS]}
             for src, tgt in zip(job.ids("train", work.SRC), job.ids("train", work.TGT), strict=True)]

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        counts.append(sum(len(row["labels"]) for row in rows))
        labels = _pad([row["labels"] for row in rows], -100)
        starts = _pad([[work.BOS, *row["labels"][:-1]] for row in rows], work.PAD)  # label smoothing hides the labels
        return _source([row["input_ids"] for row in rows]) | {"labels": labels, "decoder_input_ids": starts}

    def translate() -> list[str]:
        hypotheses = _search(model, sources, 64, {"max_new_tokens": 60})
        model.train()
        return [job.words(ids) for ids in hypotheses]

    class CountUpdates(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            meter.update(counts.popleft(), translate)  # the loader is a batch ahead

    arguments = Seq2SeqTrainingArguments(
        output_dir=job.folder, use_cpu=True, bf16=job.precision == "bf16", seed=1, max_steps=work.FOREVER,
        per_device_train_batch_size=SENTENCES, train_sampling_strategy="group_by_length",
        learning_rate=work.LR, warmup_steps=work.WARMUP, lr_scheduler_type="inverse_sqrt",
        adam_beta1=work.BETA1, adam_beta2=work.BETA2, label_smoothing_factor=work.SMOOTHING,
        save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False)
    Seq2SeqTrainer(model=model, args=arguments, train_dataset=pairs, data_collator=collate,
                   callbacks=[CountUpdates()]).train()


def decode(job: Job, report: Report) -> None:
    """Time search with untrained weights: at a forced length they cost the same as trained ones."""
    import torch

    model = _model().to(torch.bfloat16 if job.precision == "bf16" else torch.float32)
    sources = job.ids(work.TEST, work.SRC)
    forced = {"min_new_tokens": work.LENGTH, "max_new_tokens": work.LENGTH}
    time_decoding(job, report, len(sources), lambda rows, size, beam: [
        len(ids) for ids in _search(model, [sources[i] for i in rows], size, forced | {"num_beams": beam})])


def _model() -> Any:
    from transformers import MarianConfig, MarianMTModel

    both = {f"{half}_{name}": value for half in ("encoder", "decoder") for name, value in (
        ("layers", work.LAYERS), ("ffn_dim", work.D_FF), ("attention_heads", work.HEADS))}
    return MarianMTModel(MarianConfig(
        **both, vocab_size=work.VOCAB, d_model=work.D_MODEL, max_position_embeddings=512, scale_embedding=True,
        dropout=work.DROPOUT, attention_dropout=work.DROPOUT, activation_dropout=work.DROPOUT,
        activation_function="relu", attn_implementation="sdpa", pad_token_id=work.PAD, bos_token_id=work.BOS,
        eos_token_id=work.EOS, decoder_start_token_id=work.BOS, forced_eos_token_id=None))


def _search(model: Any, sources: list[list[int]], size: int, limits: dict[str, int]) -> list[list[int]]:
    """Translate, greedily unless `num_beams` says otherwise. --> ids after BOS, in the sources' order"""
    import torch

    hypotheses: dict[int, list[int]] = {}
    model.eval()
    with torch.inference_mode():
        for rows in longest_first(sources, size):
            batch = _source([[*sources[i], work.EOS] for i in rows])
            ids = model.generate(**batch, **{"num_beams": 1, "do_sample": False} | limits)[:, 1:].tolist()
            hypotheses.update(zip(rows, ids, strict=True))
    return [hypotheses[i] for i in range(len(sources))]


def _source(rows: list[list[int]]) -> dict[str, Any]:
    ids = _pad(rows, work.PAD)
    return {"input_ids": ids, "attention_mask": (ids != work.PAD).long()}


def _pad(rows: list[list[int]], value: int) -> Any:
    import torch

    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)

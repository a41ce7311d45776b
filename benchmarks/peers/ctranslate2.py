"""CTranslate2, asked as its own documentation asks it: the model is what `minitx export` writes for it."""

from collections.abc import Sequence

from benchmarks import work
from benchmarks.peers.minitx import write_export
from benchmarks.work import Job, Report, time_decoding

IN_OURS = ("ctranslate2",)  # packages of minitx's own environment
DECODES_IN = ("fp32", "int8")


def decode(job: Job, report: Report) -> None:
    """Time search with untrained weights: at a forced length they cost the same as trained ones."""
    import ctranslate2

    from minitx.data.tokenizer import TokenizerPair

    folder = write_export(job, "ctranslate2", None if job.precision == "fp32" else job.precision)
    types = {"fp32": "float32", "int8": "int8_float32"}
    translator = ctranslate2.Translator(str(folder), device="cpu", inter_threads=1, intra_threads=job.threads,
                                        compute_type=types[job.precision])
    names = TokenizerPair.load(folder).src.tokens
    sources = [[names[i] for i in ids] for ids in job.ids(work.TEST, work.SRC)]  # it adds EOS itself

    def search(rows: Sequence[int], size: int, beam: int) -> list[int]:
        found = translator.translate_batch([sources[i] for i in rows], beam_size=beam, max_batch_size=size,
                                           min_decoding_length=work.LENGTH, max_decoding_length=work.LENGTH)
        return [len(result.hypotheses[0]) for result in found]

    time_decoding(job, report, len(sources), search)

"""Lines longer than a model reads, as parts that it does read: sentences, or what fits of a longer one."""

from collections.abc import Iterator, Sequence, Set

from minitx.data.lines import is_blank
from minitx.data.tokenizer import Tokenizer


def split_line(text: str, language: str, tokenizer: Tokenizer, most: int) -> list[list[int]]:
    """Split a line into sentences of at most `most` tokens each, in order; nothing but space between them is left out.

    language: a code such as "de"; one that the splitter does not know is split by punctuation alone. --> ids
    """
    from sentencex import segment  # type: ignore[import-untyped]

    sentences = [sentence for part in segment(language, text) if not is_blank(sentence := part.strip())]
    return [part for ids in tokenizer.encode_batch(sentences)
            for part in cut_between_words(ids, tokenizer.word_beginnings, most)]


def cut_between_words(ids: Sequence[int], beginnings: Set[int], most: int) -> Iterator[list[int]]:
    """Cut ids into parts of at most `most`, each as long as words allow; only a word longer than that is cut itself."""
    start = 0
    while len(ids) - start > most:
        places = range(start + most, start, -1)
        end = next((place for place in places if ids[place] in beginnings), start + most)
        yield list(ids[start:end])
        start = end
    yield list(ids[start:])

"""What the page says of each of its tables and studies, in words: a heading, and a sentence below the table."""

from typing import NamedTuple


class Heading(NamedTuple):
    """The heading of a section, and the sentence below its table."""

    title: str
    about: str


ENCODINGS = ("Transformers that are told positions in different ways, or not at all. BLEU on the embedded text, and on "
             "sentences of so many words, with its 95 % interval.")
ROLES = ("The share of sentences whose subject and object are the right ones, and the share in which they changed "
         "places, by the number of words.")
RECURRENCE = ("A recurrence that takes all steps at once, with one vector between the languages or with attention to "
              "the source, and attention to a window, after as many updates each.")
CLAIMS = "Common claims, each put to a measurement that might have refuted it."
TABLES = {
    "headline": Heading("Four systems, the same minutes of training", (
        "Captions (Multi30k): the same text, tokenizer, batches, loss, search and clock; the model differs. Each line "
        "is a system: the mean of its seeds and, behind ±, their standard deviation.")),
    "headline_full": Heading("Four systems on WMT14", (
        "The same conditions for each system, but for the model, in the sizes base and big.")),
    "embedded": Heading("Who did what: the embedded text", (
        "A grammar of our own, in which order carries meaning. Roles right: the share of sentences whose subject and "
        "object are the right ones, where another sentence holds the same words in another order.")),
    "multi30k": Heading("Captions, run by run", "Single runs on Multi30k; the commands below name what differs."),
    "best": Heading("Captions, longer runs", (
        "Runs on Multi30k of which, where it is better, the mean of the last checkpoints serves. Moses BLEU is the "
        "kind that older papers report.")),
    "positions_short": Heading("Positions: trained on short sentences", ENCODINGS),
    "positions_all": Heading("Positions: trained on all lengths", ENCODINGS),
    "roles_short": Heading("Who did what: trained on short sentences", ROLES),
    "roles_all": Heading("Who did what: trained on all lengths", ROLES),
    "positions_bible": Heading("Positions: verses", (
        "Real sentences, many of them long: BLEU by the words of the source, with its 95 % interval and the number of "
        "sentences.")),
    "recurrence_captions": Heading("The linear recurrence: captions", RECURRENCE),
    "recurrence_short": Heading("The linear recurrence and a window: trained on short sentences", RECURRENCE),
    "recurrence_all": Heading("The linear recurrence and a window: trained on all lengths", RECURRENCE),
    "recurrence_verses": Heading("The linear recurrence and a window: verses", RECURRENCE),
}  # fmt: skip
STUDIES = {
    "lengths": Heading("What a sentence costs as it grows", CLAIMS),
    "memory": Heading("What a training step holds in memory", CLAIMS),
    "decoding": Heading("What the next token costs, the longer the translation is", CLAIMS),
    "gradients": Heading("How much of a gradient comes back to a token far behind", CLAIMS),
    "retention": Heading("How much of the first token a final state still holds", CLAIMS),
    "scaling-law": Heading("How the loss falls with size and with text", CLAIMS),
    "scan": Heading("What waiting for one another costs, and what a scan and attention cost", CLAIMS),
    "gpu": Heading("How busy a GPU is, and how soon it reaches a BLEU: predicted", (
        "Predicted for GPUs that were not at hand, and tested on trainings that others published.")),
}

"""What is chosen among: an option of the group `model` at a size, trained by the recipe of a text. No torch."""

from dataclasses import dataclass, replace
from functools import cache
from math import ceil, log
from typing import Any

import yaml

from minitx.config.compose import compose
from minitx.config.schema import SIZES, Config
from minitx.experiments.selection.demands import Demands
from minitx.training.launch import resolve
from minitx.utils.checkout import CONF

OMITTED = {"gnmt": "an LSTM with attention that differs in its layers alone",
           "transformer_nope": "knows no positions, for comparison alone",
           "transformer_learned": "reads no sentence longer than its table"}
SAVINGS = ("", "small micro-batches", "recomputed layers")  # of memory; each has what those before it have
SMALLEST = "tiny"  # toy is for tests
USUAL_LENGTH = 250  # data.max_length, as conf/data has it


@dataclass(frozen=True)
class Recipe:
    """How a text of conf/data is trained on: what it recommends."""

    data: str
    size: str
    tokens: float  # target tokens that its training reads
    tokens_per_update: int
    max_tokens: int
    values: dict[str, Any]  # all that it recommends


@dataclass(frozen=True)
class Candidate:
    """An architecture at a size."""

    architecture: str  # option of the group model
    size: str
    saving: str = SAVINGS[0]  # of memory, in training

    def __str__(self) -> str:
        return f"{self.architecture} {self.size}" + (f", {self.saving}" if self.saving else "")


@cache
def architectures() -> tuple[str, ...]:
    """Return the options of conf/model that are chosen among."""
    return tuple(sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem not in OMITTED))


@cache
def recipes() -> tuple[Recipe, ...]:
    """Return what the texts of conf/data recommend, by training tokens; one's own files recommend nothing of a text."""
    found = []
    for path in (CONF / "data").glob("*.yaml"):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        advice = values["recommends"]
        if path.stem != "files":
            found.append(Recipe(path.stem, advice["model_size"],
                                float(advice["max_steps"] * advice["tokens_per_update"]),
                                advice["tokens_per_update"], values["max_tokens"], advice))
    return tuple(sorted(found, key=lambda recipe: recipe.tokens))


def nearest_recipe(tokens: float) -> Recipe:
    """Return that of the text whose training reads about as many tokens."""
    return min(recipes(), key=lambda recipe: abs(log(recipe.tokens / tokens)))


def recipe_of(candidate: Candidate, demands: Demands) -> Recipe:
    """Return the recipe by which a candidate is trained.

    Where the tokens are not known before the speed is, it is that of the smallest text that its size is recommended to.
    """
    if demands.tokens is not None:
        return nearest_recipe(demands.tokens)
    return next((recipe for recipe in recipes() if recipe.size == candidate.size), recipes()[-1])


def sizes(demands: Demands) -> tuple[str, ...]:
    """Return the sizes to try, the largest first: none is larger than that which any text of so many tokens has."""
    suited = {recipe.size for recipe in recipes()} if demands.tokens is None else {nearest_recipe(demands.tokens).size}
    largest = max(SIZES.index(size) for size in suited)
    return SIZES[largest:SIZES.index(SMALLEST) - 1:-1]


def is_too_large(candidate: Candidate, tokens: float) -> bool:
    """Return whether texts of so many training tokens are recommended a smaller size."""
    return SIZES.index(candidate.size) > SIZES.index(nearest_recipe(tokens).size)


def words(candidate: Candidate, demands: Demands) -> tuple[str, ...]:
    """Return the words of the model alone."""
    one_way = ("model.bidirectional=false",) if demands.streaming and reads_both_ways(candidate.architecture) else ()
    return (f"model={candidate.architecture}", f"model.size={candidate.size}", *one_way)


@cache
def reads_both_ways(architecture: str) -> bool:
    """Return whether an option's encoder reads both ways, and may be told not to."""
    return bool(getattr(compose([f"model={architecture}", "logger=none"]).model, "bidirectional", False))


def config_words(candidate: Candidate, demands: Demands) -> tuple[str, ...]:
    """Return the words of the config by which a candidate is recorded and measured; no text is read for it."""
    recipe = recipe_of(candidate, demands)
    return (f"data={recipe.data}", *words(candidate, demands), "logger=none",
            f"trainer.accelerator={'cpu' if demands.device is None else 'auto'}",
            f"data.max_length={max(USUAL_LENGTH, demands.longest)}", *saving_words(candidate, demands),
            f"trainer.tokens_per_update={update_tokens(recipe, demands)}")


def config(candidate: Candidate, demands: Demands) -> Config:
    """Return the resolved config by which a candidate would be trained. Errors: `UserError` for what train refuses"""
    return resolve(compose(config_words(candidate, demands)))


def saving_words(candidate: Candidate, demands: Demands) -> tuple[str, ...]:
    """Return the words that say how much is held in memory at a time."""
    again = ("trainer.activation_checkpointing=true",) if candidate.saving == SAVINGS[2] else ()
    return (f"data.max_tokens={positions(candidate, demands)}", *again)


def positions(candidate: Candidate, demands: Demands) -> int:
    """Return the padded positions of a micro-batch: as recommended, or, at least, what the longest sentence takes."""
    longest = 8 * ceil(max(USUAL_LENGTH, demands.longest) / 8)
    return longest if candidate.saving else max(recipe_of(candidate, demands).max_tokens, longest)


def savings(candidate: Candidate, demands: Demands, recomputable: bool) -> tuple[Candidate, ...]:
    """Return a candidate as usual, and then with what saves memory, as far as that is something else."""
    ways = [replace(candidate, saving=saving) for saving in SAVINGS[:2 + recomputable]]
    narrower = positions(ways[1], demands) < positions(ways[0], demands)
    return tuple(way for way in ways if narrower or way.saving != SAVINGS[1])


def update_tokens(recipe: Recipe, demands: Demands) -> int:
    """Return the tokens of an update: as recommended, or a sentence for each device."""
    return max(recipe.tokens_per_update, demands.gpus * demands.length)


def command(candidate: Candidate, demands: Demands, tokens: float, precision: str) -> str:
    """Write the command of such a training, on files of one's own."""
    recipe = recipe_of(candidate, demands)
    per_update = update_tokens(recipe, demands)
    advice = recipe.values
    vocabulary = [] if advice["vocab_size"] is None else [f"tokenizer.vocab_size={advice['vocab_size']}"]
    devices = [f"trainer.devices={demands.gpus}"] if demands.gpus > 1 else []
    longest = [f"data.max_length={demands.longest}"] if demands.longest > USUAL_LENGTH else []
    return " ".join(["minitx train data=files data.dir=FOLDER", *words(candidate, demands), *vocabulary, *longest,
                     *saving_words(candidate, demands), f"trainer.tokens_per_update={per_update}",
                     f"trainer.max_steps={max(1, round(tokens / per_update))}", f"optim.lr={advice['lr']}",
                     f"optim.warmup_steps={advice['warmup_steps']}", f"model.dropout={advice['dropout']}",
                     f"trainer.precision={precision}", *devices])

"""The numbers of docs/story.md, a few sentences a step, each with its interval, its conditions and its commands."""

from collections.abc import Callable, Sequence

from minitx.evaluation.significance import Comparison
from minitx.experiments.fits import wilson
from minitx.experiments.reports import findings
from minitx.experiments.reports.evidence import CAPTIONS, MISSING, NAMES, Evidence, Study, counted_seeds
from minitx.experiments.reports.tables import COLUMNS, TABLES

EXAMPLE = 1_024  # tokens of the sentence whose chain is written out
SHORT = 512  # tokens at which times are compared, besides the longest sentence that both families were given
LONG = "length_50"  # the test set of sentences longer than `positions_short` is trained on


def render(step: str, evidence: Evidence | None) -> str:
    """Write a step's numbers as Markdown, or what would make them."""
    return MISSING if evidence is None else STEPS[step](evidence)


def recurrence(evidence: Evidence) -> str:
    """Tell how many operators wait for one another, and what that comes to in time."""
    study = evidence.lengths
    lstm, transformer = (study["families"][name] for name in ("lstm", "transformer"))
    (short, (ratio, low, high)), (long, (longest, long_low, long_high)) = _times_as_fast(study)
    chains = [depth["constant"] + EXAMPLE * depth["a_token"] for depth in (lstm["depth"], transformer["depth"])]
    return _joined(
        f"In a sentence of {EXAMPLE:,} tokens, {chains[0]:,.0f} operators of the LSTM wait for one another, "
        f"{lstm['depth']['a_token']:g} for each token. Of the Transformer {chains[1]:,.0f} do, however long the "
        "sentence. That is counted, so it has no interval.",
        f"In time, on this machine: at {short:,} tokens the Transformer is {ratio:.2f} times as fast as the LSTM "
        f"({low:.2f} to {high:.2f}); at {long:,} tokens the LSTM is {1 / longest:.1f} times as fast as the Transformer "
        f"({1 / long_high:.1f} to {1 / long_low:.1f}).",
        findings.conditions(study), _commands(findings.command("lengths", study)))


def attention(evidence: Evidence) -> str:
    """Tell what attention is worth to an LSTM, on captions and on the embedded text."""
    gain = evidence.difference("headline", "lstm", "lstm_attention", CAPTIONS)
    without, with_it = (evidence.score("embedded", model, "test") for model in ("lstm", "lstm_attention"))
    dictionary = evidence.score("embedded", "lstm", "test", "dictionary_bleu")
    return _joined(
        f"On captions attention takes the LSTM from BLEU {gain.bleu[0]:.1f} to {gain.bleu[1]:.1f}: {_worth(gain)}.",
        f"On the embedded text the LSTM reaches {without:.1f} in the same updates, with attention {with_it:.1f}; a "
        f"word-for-word dictionary scores {dictionary:.1f}.",
        _trained(evidence, "headline", "embedded"),
        _commands(*_of(evidence, "headline", "lstm", "lstm_attention"),
                  *_of(evidence, "embedded", "lstm", "lstm_attention")))


def order(evidence: Evidence) -> str:
    """Tell what a Transformer without positions no longer knows."""
    roles = {model: _share(evidence, "embedded", model, "role_accuracy_pct")
             for model in ("transformer", "transformer_nope")}
    right, swapped = (evidence.score("positions_short", "transformer_nope", "minimal_pairs", key)
                      for key in ("role_accuracy_pct", "roles_swapped_pct"))
    plain, shuffled = (evidence.score("positions_short", "transformer_nope", name)
                       for name in ("test", "test_shuffled"))
    ordered = evidence.score("positions_short", "transformer", "test_shuffled")
    return _joined(
        f"Who did what is told right in {roles['transformer']} of the sentences with positions, and in "
        f"{roles['transformer_nope']} without. Another training without them gets {right:.1f} % right and "
        f"{swapped:.1f} % the wrong way round.",
        f"With the words of each source in random order that model scores BLEU {shuffled:.1f}, and {plain:.1f} with "
        f"the words in their own order. With positions, random order leaves BLEU {ordered:.1f}.",
        _trained(evidence, "embedded", "positions_short"),
        _commands(*_of(evidence, "embedded", "transformer_nope", "transformer"),
                  *_of(evidence, "positions_short", "transformer_nope")))


def positions(evidence: Evidence) -> str:
    """Tell what positions are worth, on captions and at length."""
    gain = evidence.difference("headline", "transformer_nope", "transformer", CAPTIONS)
    words = LONG.partition("_")[2]
    at_length = {model: _interval(evidence.bleu("positions_all", model, LONG))
                 for model in ("transformer_nope", "transformer")}
    beyond = _interval(evidence.bleu("positions_short", "transformer", LONG))
    return _joined(
        f"On captions positions take the Transformer from BLEU {gain.bleu[0]:.1f} to {gain.bleu[1]:.1f}: "
        f"{_worth(gain)}.",
        f"On sentences of {words} words it scores {at_length['transformer']} with them and "
        f"{at_length['transformer_nope']} without, where such lengths were trained on. Trained on up to 16 words "
        f"alone, it scores {beyond} there even with them.",
        _trained(evidence, "headline", "positions_all", "positions_short"),
        _commands(*_of(evidence, "headline", "transformer_nope", "transformer"),
                  *_of(evidence, "positions_all", "transformer_nope", "transformer")))


def cost(evidence: Evidence) -> str:
    """Tell what attention costs as sentences grow, and what an update costs."""
    study = evidence.lengths
    grown = {name: {of: f"L^{fit['exponent']:.2f} ({fit['interval'][0]:.2f} to {fit['interval'][1]:.2f})"
                    for of in ("time", "memory") if (fit := study["families"][name][of]) is not None}
             for name in ("transformer", "lstm")}
    speed = {model: COLUMNS["target tokens/s"](rows) for model, rows in evidence.rows["headline"].items()}
    return _joined(
        f"With the length L of a sentence the Transformer's time grows as {grown['transformer'].get('time', 'n/a')} "
        f"and its memory as {grown['transformer'].get('memory', 'n/a')}; the LSTM's time as "
        f"{grown['lstm'].get('time', 'n/a')} and its memory as {grown['lstm'].get('memory', 'n/a')}.",
        "On captions, which are short, the speed of training, in target tokens a second: "
        + "; ".join(f"{name} {speed[model]}" for model, name in NAMES.items()) + ".",
        findings.conditions(study), _trained(evidence, "headline"),
        _commands(findings.command("lengths", study), *_of(evidence, "headline", *NAMES)))


def still_open(evidence: Evidence) -> str:
    """Tell what these measurements do not decide."""
    gain = evidence.difference("headline", "lstm_attention", "transformer", CAPTIONS)
    reached = {model: COLUMNS["to target"](evidence.rows["headline"][model])
               for model in ("lstm_attention", "transformer")}
    target = evidence.rows["headline"]["transformer"][0].result.target_bleu
    return _joined(
        f"From the LSTM with attention to the Transformer, on captions: {_worth(gain)}. Verdict: "
        f"{gain.verdict}. A true difference of {gain.detectable:.1f} BLEU would be found eight times in ten.",
        f"Training until BLEU {target:g} on the validation set takes the LSTM with attention "
        f"{reached['lstm_attention']} and the Transformer {reached['transformer']} on this machine.",
        _trained(evidence, "headline"), _commands(*_of(evidence, "headline", "lstm_attention", "transformer")))


STEPS: dict[str, Callable[[Evidence], str]] = {
    "recurrence": recurrence, "attention": attention, "order": order, "positions": positions, "cost": cost,
    "open": still_open}


# --- parts of a step


def _joined(*parts: str) -> str:
    return "\n\n".join(parts)


def _commands(*lines: str) -> str:
    return "\n".join(["```", *dict.fromkeys(lines), "```"])


def _of(evidence: Evidence, table: str, *models: str) -> list[str]:
    """Return the commands that train these systems: a suite's, if one has them with all their seeds."""
    if (suite := TABLES[table].suite) is not None:
        return [f"minitx suite {suite}"]
    return [row.command for model in models for row in evidence.rows[table][model]]


def _trained(evidence: Evidence, *tables: str) -> str:
    """Say what was trained on, and with which seeds."""
    return " ".join(f"`{table}`: {evidence.hardware(table)}, seed {_seeds(evidence, table)}." for table in tables)


def _seeds(evidence: Evidence, table: str) -> str:
    return ", ".join(map(str, sorted({row.result.seed for rows in evidence.rows[table].values() for row in rows})))


def _worth(gain: Comparison) -> str:
    low, high = gain.interval
    return (f"**{gain.difference:+.1f} BLEU** (95 % interval {low:+.1f} to {high:+.1f}, "
            f"{counted_seeds(gain.seeds[1])} each)")


def _interval(bleu: tuple[float, float, float]) -> str:
    return f"BLEU {bleu[0]:.1f} ({bleu[1]:.1f} to {bleu[2]:.1f})"


def _share(evidence: Evidence, table: str, model: str, key: str) -> str:
    """Write a share of the minimal pairs with its interval."""
    share = evidence.score(table, model, "minimal_pairs", key)
    sentences = evidence.rows[table][model][0].result.test["minimal_pairs"]["sentences"]
    low, high = (100 * end for end in wilson(round(share / 100 * sentences), sentences))
    return f"{share:.1f} % ({low:.1f} to {high:.1f})"


def _times_as_fast(study: Study) -> Sequence[tuple[int, tuple[float, float, float]]]:
    """Return, at two lengths, by how much the Transformer is faster than the LSTM; ends: fastest over slowest."""
    lstm, transformer = ({point["length"]: point for point in study["families"][name]["points"]}
                         for name in ("lstm", "transformer"))
    both = sorted(lstm.keys() & transformer.keys())
    return [(length, (lstm[length]["seconds"] / transformer[length]["seconds"],
                      lstm[length]["fastest_s"] / transformer[length]["slowest_s"],
                      lstm[length]["slowest_s"] / transformer[length]["fastest_s"]))
            for length in (min(both, key=lambda length: abs(length - SHORT)), both[-1])]

"""The report's figures, drawn from the ledger's rows, whatever their order, and from stored attention maps.

Each function returns an SVG or a PNG. L tokens attend to S tokens.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, cycle, groupby
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from minitx.evaluation.attention_maps import SCALE, AttentionMaps, shown
from minitx.evaluation.metrics import signed_tokenizer
from minitx.evaluation.significance import interval
from minitx.experiments.reports.curves import BLEU, MINUTES, NOTE, draw_systems
from minitx.experiments.reports.plots import (
    FAMILY_STYLES,
    FORMS,
    INK,
    LEGEND_TITLE,
    OTHER_STYLES,
    add_legend,
    new_figure,
    note_below,
    styles,
)
from minitx.experiments.reports.results import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

RESAMPLES = 1_000
MIN_SENTENCES, MAX_BUCKETS = 50, 6  # of a bucket of lengths, unless a test set has fewer; of a figure
LOG_RATIO = 8.0  # longest by shortest length from which the axis is logarithmic
COLOURS = (*(colour for colour, _ in (*FAMILY_STYLES.values(), *OTHER_STYLES)), "#F0E442")
CELL = 0.13  # inches of a weight
# What looks at what, by kind of attention, the most telling first.
LOOKS = {"cross": "the translation's tokens look at the source", "encoder": "the source's tokens look at each other",
         "decoder": "the translation's tokens look at those before them"}
AXES = {"encoder": ("source token looked at", "source token"),
        "decoder": ("target token looked at", "target token written"),
        "cross": ("source token looked at", "target token written")}


def group_systems(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group the seeds of each system by a name of its own: its model, unless several systems share that.

    Then it is their system, words of their commands that others lack, or the names of their first rows.
    """
    def place(row: Row) -> tuple[str, list[str]]:
        return row.result.system, row.recipe

    groups = [list(group) for _, group in groupby(sorted(rows, key=lambda row: (place(row), row.sort_key)), place)]
    firsts = [group[0] for group in groups]
    common = set.intersection(*(set(row.recipe) for row in firsts)) if firsts else set()
    names = ([row.result.model for row in firsts], [row.result.system for row in firsts],
             [" ".join(word for word in row.recipe if word not in common) or row.result.model for row in firsts],
             [row.name for row in firsts])
    return dict(zip(next(some for some in names if len(set(some)) == len(some)), groups, strict=True))


# --- validation BLEU against time


def bleu_over_time(rows: Sequence[Row], form: str = "svg") -> bytes:
    """Draw validation BLEU against minutes of training: a system's mean, and in thin lines its seeds if several."""
    with new_figure(6.4, 3.8) as figure:
        axes, systems = figure.subplots(), group_systems(rows)
        draw_systems(axes, {name: [row.curve for row in seeds] for name, seeds in systems.items()}, MINUTES, BLEU)
        for target in sorted({row.result.target_bleu for row in rows if row.result.target_bleu is not None}):
            axes.axhline(target, color=INK, linestyle="--", linewidth=1, label=f"target, BLEU {target:g}")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_title("BLEU on the validation set while training goes on", loc="left")
        add_legend(axes)
        if len(rows) > len(systems):
            note_below(figure, NOTE)
        return FORMS[form](figure)


# --- BLEU against length


def bleu_over_length(rows: Sequence[Row], test_sets: Sequence[str], form: str = "svg") -> bytes:
    """Draw corpus BLEU against reference length, over the sentences of these test sets, which every row must have.

    Intervals are those of `significance.interval`: over sentences and, where there are several, seeds.
    """
    with new_figure(6.4, 3.8) as figure:
        axes, systems = figure.subplots(), group_systems(rows)
        across: list[float] = []
        for number, ((name, seeds), (colour, marker)) in enumerate(
                zip(systems.items(), styles(systems), strict=True)):
            runs = [list(chain.from_iterable(row.sentences[test_set] for test_set in test_sets)) for row in seeds]
            lengths = [counts[1] for counts in runs[0]]
            parts = buckets(lengths)
            places = [fmean(lengths[n] for n in part) for part in parts]
            bleu = [interval([[run[n] for n in part] for run in runs], resamples=RESAMPLES) for part in parts]
            shift = 1 + 0.012 * (number - (len(systems) - 1) / 2)  # so that none hides another
            beside = [place * shift for place in places]
            axes.plot(beside, [point for point, *_ in bleu], color=colour, marker=marker, label=name)
            axes.vlines(beside, [low for _, low, _ in bleu], [high for *_, high in bleu], colors=colour, linewidth=1)
            across += places
        if max(across) >= LOG_RATIO * min(across):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        axes.set_ylim(bottom=0)
        tokenizer = signed_tokenizer(next(iter(rows[0].result.test.values()))["bleu_signature"])  # a run has one
        axes.set_xlabel(f"tokens of the reference ({tokenizer}), mean of at least {min(MIN_SENTENCES, len(lengths))} "
                        "sentences")
        axes.set_ylabel("BLEU (bars: 95 % interval)")
        axes.set_title(f"BLEU by length: {in_words(test_sets)}", loc="left")
        add_legend(axes)
        return FORMS[form](figure)


def in_words(test_sets: Sequence[str]) -> str:
    """Say which sentences these test sets hold."""
    lengths = [name.removeprefix("length_") for name in test_sets if name.startswith("length_")]
    if len(lengths) < len(test_sets):
        return f"test set {', '.join(test_sets)}"
    *others, last = lengths
    return f"sentences of {', '.join(others)}{' and ' if others else ''}{last} words"


def buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Split sentences by length; all of one length share a bucket. --> the indices of each bucket, shortest first"""
    enough, parts = max(MIN_SENTENCES, -(-len(lengths) // MAX_BUCKETS)), list[list[int]]([[]])
    for _, of_one_length in groupby(sorted(range(len(lengths)), key=lengths.__getitem__), lengths.__getitem__):
        if len(parts[-1]) >= enough:
            parts.append([])
        parts[-1] += of_one_length
    *others, last = parts
    return [*others[:-1], others[-1] + last] if others and len(last) < MIN_SENTENCES else parts


# --- where the time goes


def time_split(rows: Sequence[Row], form: str = "svg") -> bytes:
    """Draw a bar for each system: the seconds of a run by phase, averaged over its seeds."""
    splits = {name: mean_split([row.result.time_split for row in seeds])
              for name, seeds in group_systems(rows).items()}
    with new_figure(6.4, 1.6 + 0.4 * len(splits)) as figure:
        axes, ends = figure.subplots(), [0.0] * len(splits)
        for phase, colour in zip(next(iter(splits.values())), cycle(COLOURS), strict=False):
            seconds = [split[phase] for split in splits.values()]
            axes.barh(list(splits), seconds, 0.6, ends, color=colour, edgecolor="white", linewidth=0.5, label=phase)
            ends = [end + s for end, s in zip(ends, seconds, strict=True)]
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set_xlabel("seconds of a run, from start to result")
        axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(-0.01, 1), title="Where the time of a run goes",
                    alignment="left", title_fontproperties=LEGEND_TITLE)
        return FORMS[form](figure)


def mean_split(splits: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the seconds of each phase."""
    return {phase: fmean(split[phase] for split in splits) for phase in splits[0]}


# --- attention


def attention_map(maps: AttentionMaps, kinds: Sequence[str] = (), form: str = "svg") -> bytes:
    """Draw the weights of all heads, side by side, and layers, one below another. kinds: () = all of `LOOKS`"""
    kinds = kinds or [kind for kind in LOOKS if kind in maps.weights]
    grids = [tile_heads(maps.weights[kind] / SCALE) for kind in kinds]
    width, height = max(grid.shape[1] for grid in grids), sum(len(grid) for grid in grids)
    with new_figure(CELL * width + 2.2, CELL * height + 1.2 * len(grids)) as figure:
        panels = figure.subplots(len(grids), 1, squeeze=False, height_ratios=[len(grid) for grid in grids])[:, 0]
        for axes, kind, grid in zip(panels, kinds, grids, strict=True):
            image = draw_heads(axes, maps, kind, grid)
        figure.colorbar(image, ax=panels.tolist(), label="attention weight", aspect=30,
                        shrink=min(1, 3 / (CELL * height)))
        return FORMS[form](figure)


def draw_heads(axes: "Axes", maps: AttentionMaps, kind: str, grid: npt.NDArray[np.float64]) -> "AxesImage":
    """Draw one kind of attention: tokens at the left and below, heads above, layers at the right."""
    layers, heads, L, S = maps.weights[kind].shape
    queries, keys = map(shown, maps.sides(kind))
    image = axes.imshow(grid, cmap="cividis", vmin=0, vmax=1, interpolation="none")
    across, down = ([part * (size + 1) for part in range(parts)] for size, parts in ((S, heads), (L, layers)))
    axes.set_xticks([start + n for start in across for n in range(S)], keys * heads, rotation=90, fontsize=6,
                    parse_math=False)  # a token may hold a $
    axes.set_yticks([start + n for start in down for n in range(L)], queries * layers, fontsize=6, parse_math=False)
    top, right = axes.secondary_xaxis("top"), axes.secondary_yaxis("right")
    top.set_xticks([start + (S - 1) / 2 for start in across], [f"head {n + 1}" for n in range(heads)])
    right.set_yticks([start + (L - 1) / 2 for start in down], [f"layer {n + 1}" for n in range(layers)], rotation=270,
                     va="center")
    for side in (axes, top, right):
        side.tick_params(length=0)
        side.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.set_title(f"{kind}: {LOOKS[kind]}", loc="left")
    key_label, query_label = AXES[kind]
    axes.set_xlabel(key_label)
    axes.set_ylabel(query_label)
    return image


def tile_heads(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Tile heads across and layers down, with a gap of NaN. [layers, heads, L, S] --> [layers (L + 1) - 1, ...]"""
    gaps = np.pad(weights, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    layers, heads, L, S = gaps.shape
    matrix: npt.NDArray[np.float64] = gaps.transpose(0, 2, 1, 3).reshape(layers * L, heads * S)[:-1, :-1]
    return matrix

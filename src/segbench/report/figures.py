"""The report's charts: SVG with text as text, in the page's colours, so that light and dark pages both work."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from segbench.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _GROUND = "#010203", "#020304"
"""Placeholders for the page's text and background colours while matplotlib draws."""
COLOURS = ("#4c8dd6", "#d9822b", "#3f9c6b", "#b65fc0", "#c94f4f", "#8a8d3a")
_STYLES = ("-", "--", ":", "-.")
"""Line styles; each further round of colours takes the next."""
_ANNOTATED = 8
"""Up to this many classes a confusion matrix shows its shares as numbers."""


@contextlib.contextmanager
def _drawing(salt: str, formulas: bool = False) -> Iterator[Any]:
    import matplotlib

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "axes.titlecolor")
    settings: dict[str, Any] = dict.fromkeys(inked, _INK) | {
        "svg.fonttype": "none",
        # A name with dollar signs is no formula.
        "text.parse_math": formulas,
        # Several drawings share a page: their ids must differ.
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
        "axes.grid": True,
        "grid.color": "#88888855",
        "grid.linewidth": 0.5,
    }
    with matplotlib.rc_context(settings):
        yield matplotlib


def _svg(figure: Figure) -> Markup:
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    # Without the XML head, which is not allowed inside HTML.
    # matplotlib escapes every text.
    text = printable(text[text.index("<svg") :])
    return Markup(text.replace(_INK, "currentColor").replace(_GROUND, "var(--ground)"))


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    # Not pyplot: it keeps every figure, and chooses a backend for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], label: str, log: bool = False) -> Markup:
    """Values over steps.

    Args:
        series: steps and values by name.
        label: of the values.
        log: use a logarithmic scale if the values span a factor of ten.
    """
    met = [value for _, values in series.values() for value in values]
    log = log and min(met) > 0 and max(met) >= 10 * min(met)
    # A logarithmic scale has exponents.
    with _drawing(f"curves {label} {sorted(series)}", formulas=log):
        rows = math.ceil(len(series) / 2) if len(series) > 1 else 0
        figure, axes = _axes(5.2, 3.0 + 0.18 * rows)
        for number, (name, (steps, values)) in enumerate(series.items()):
            again, which = divmod(number, len(COLOURS))
            colour, style = COLOURS[which], _STYLES[again % len(_STYLES)]
            marker = "o" if len(steps) <= 30 else ""
            axes.plot(
                steps, values, label=name, linewidth=1.4, color=colour, linestyle=style, marker=marker, markersize=3
            )
        axes.set(xlabel="step", ylabel=label, yscale="log" if log else "linear")
        if rows:
            # Below the axes: many lines leave no free corner.
            legend = figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
            for text in legend.get_texts():
                text.set_parse_math(False)
        return _svg(figure)


def bars(values: Mapping[str, float], label: str, limit: float | None = 1.0) -> Markup:
    """One bar per name, in the given order; names with an undefined value have none.

    Args:
        values: by name; NaN if undefined.
        label: of the values.
        limit: end of the scale; None: from the values.
    """
    with _drawing(f"bars {label} {list(values)}"):
        figure, axes = _axes(5.2, 0.6 + 0.24 * max(len(values), 2))
        places = np.arange(len(values))
        heights = [0.0 if math.isnan(value) else value for value in values.values()]
        axes.barh(places, heights, color=COLOURS[0], height=0.72)
        for place, value in enumerate(values.values()):
            said = "undefined" if math.isnan(value) else f"{value:.3f}"
            at = (0 if math.isnan(value) else value, place)
            axes.annotate(said, at, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(places, list(values))
        axes.invert_yaxis()
        axes.set(xlabel=label, xlim=(0, None if limit is None else limit * 1.12))
        axes.grid(axis="y", visible=False)
        return _svg(figure)


def confusion(matrix_KK: NDArray[np.generic], names: Sequence[str]) -> Markup:
    """Shares of each labelled class's pixels by predicted class: rows are labels; a row sums to 1, or is empty.

    Args:
        matrix_KK: pixels of row i predicted as column j.
        names: of the classes.
    """
    counts_KK = np.asarray(matrix_KK, np.float64)
    labelled_K1 = counts_KK.sum(1, keepdims=True)
    share_KK = np.divide(counts_KK, labelled_K1, out=np.full_like(counts_KK, np.nan), where=labelled_K1 > 0)
    side = min(7.5, 2.2 + 0.26 * len(names))
    with _drawing(f"confusion {list(names)}"):
        figure, axes = _axes(side + 0.8, side)
        image = axes.imshow(share_KK, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        figure.colorbar(image, ax=axes, shrink=0.8, label="share of the labelled pixels")
        places = range(len(names))
        axes.set_xticks(places, list(names), rotation=90 if len(names) > 4 else 0, fontsize=7 if len(names) > 12 else 9)
        axes.set_yticks(places, list(names), fontsize=7 if len(names) > 12 else 9)
        axes.set(xlabel="predicted", ylabel="labelled")
        axes.grid(visible=False)
        if len(names) <= _ANNOTATED:
            for row in places:
                for column in places:
                    share = share_KK[row, column]
                    if not math.isnan(share):
                        ink = "white" if share < 0.55 else "black"
                        axes.text(column, row, f"{share:.3f}", ha="center", va="center", color=ink, fontsize=8)
        return _svg(figure)


def parallel_coordinates(rows: Sequence[Mapping[str, Any]], score: str, higher_is_better: bool) -> Markup:
    """One line per run through one axis per setting, the score last and as colour: dark is worse, light is better.

    Numbers are placed by value (by logarithm if all are above 0 and span more than a factor of 20), other settings at
    equal distances.

    Args:
        rows: settings and the score of each run.
        score: the key of the score.
        higher_is_better: its direction.
    """
    from matplotlib.collections import LineCollection

    keys = [key for key in rows[0] if key != score] + [score]
    placed = {key: _places([row[key] for row in rows]) for key in keys}
    quality = np.array([row[score] for row in rows], np.float64) * (1 if higher_is_better else -1)
    spread = max(float(np.ptp(quality)), 1e-12)
    with _drawing(f"parallel {keys}") as matplotlib:
        figure, axes = _axes(max(5.2, 1.6 * len(keys)), 3.6)
        # Of one lightness: every line is seen on light and on dark ground.
        ramp = matplotlib.colors.LinearSegmentedColormap.from_list("quality", ["#8a8a8a", COLOURS[1]])
        colours = ramp((quality - quality.min()) / spread)
        order = np.argsort(quality)
        heights_NK = np.array([placed[key][0] for key in keys]).T[order]
        lines_NK2 = np.stack(np.broadcast_arrays(np.arange(len(keys), dtype=np.float64), heights_NK), axis=2)
        # One artist for all: thousands of them take most of the time of a report.
        axes.add_collection(LineCollection(list(lines_NK2), colors=colours[order], linewidths=1.6, alpha=0.85))
        for place, key in enumerate(keys):
            axes.axvline(place, color=_INK, linewidth=0.8)
            for height, said in placed[key][1]:
                # Lines pass behind the text.
                box = {"facecolor": _GROUND, "edgecolor": "none", "alpha": 0.8, "pad": 1}
                axes.text(place + 0.03, height, said, fontsize=8, va="center", bbox=box)
        axes.set_xticks(range(len(keys)), keys, fontsize=8)
        axes.set(yticks=[], xlim=(-0.1, len(keys) - 0.6), ylim=(-0.06, 1.06))
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        return _svg(figure)


def _places(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights in [0, 1] of the values, and the labels of the axis."""
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > 1:
        low, high = min(numbers), max(numbers)
        log = low > 0 and high / low > 20
        scaled = np.log(numbers) if log else np.array(numbers, np.float64)
        heights = ((scaled - scaled.min()) / np.ptp(scaled)).tolist()
        marked = dict(zip(heights, numbers, strict=True))
        shown = marked if len(marked) <= 6 else {0.0: low, 1.0: high}
        return heights, [(height, f"{value:.4g}") for height, value in shown.items()]
    names = sorted({str(value) for value in values})
    step = 1 / max(len(names) - 1, 1)
    return [names.index(str(v)) * step for v in values], [(n * step, name) for n, name in enumerate(names)]

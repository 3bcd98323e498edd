"""A comparison as tables and sentences with titles, before any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segbench.compare.columns import Column, Summary
from segbench.compare.comparison import Comparison, Difference, Pair
from segbench.compare.conclusions import overview, p_value
from segbench.compare.definitions import score_infos
from segbench.compare.grouping import Group, show_setting
from segbench.display.digits import number, percent, span, spread
from segbench.errors import SegbenchError

SIDE_BY_SIDE = 4
"""Up to this many groups are columns; more are rows."""
DETAILED = 3
"""Up to this many pairs get their own sentences and tables of classes and images."""


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
        name: selects it with `table=`.
        title: above it.
        header: one name per column.
        rows: cells, as many as the header has.
        numeric: whether each column holds numbers.
        caption: what a reader must know, one sentence each.
        fixed: leading columns that name the row; a narrow terminal may drop columns after them. 0: it may drop none.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    caption: tuple[str, ...] = ()
    fixed: int = 0


@dataclass(frozen=True)
class Sentences:
    """Sentences under a heading.

    Attributes:
        title: the heading.
        sentences: one list item each.
        warning: whether something is wrong or missing.
    """

    title: str
    sentences: tuple[str, ...]
    warning: bool = False


@dataclass(frozen=True)
class Document:
    """The whole output.

    Attributes:
        title: the heading.
        blocks: in order.
    """

    title: str
    blocks: tuple[Table | Sentences, ...]


def document(comparison: Comparison) -> Document:
    """The whole comparison."""
    table = comparison.table
    blocks: list[Table | Sentences] = [*_scores(comparison)]
    detailed = comparison.pairs if len(comparison.pairs) <= DETAILED else ()
    for pair in detailed:
        blocks.append(Sentences(f"What can be concluded about {_names(pair)}", pair.sentences))
    if comparison.pairs and not detailed:
        blocks.append(Sentences("What can be concluded", tuple(overview(comparison))))
    if any(pair.differences for pair in comparison.pairs):
        blocks.append(_differences(comparison))
    blocks += [_plan(pair) for pair in detailed if pair.plan]
    for pair in detailed:
        if pair.classes:
            title = f"IU of each class, {_names(pair)}"
            blocks.append(_difference_table("classes", title, pair.classes, False, comparison.settings.confidence))
    for pair in detailed:
        if pair.changed:
            blocks.append(_images(pair))
    wrong = [f"{refusal.what}: {_one_line(refusal.error)}" for refusal in comparison.refusals]
    if wrong:
        blocks.append(Sentences("Not tested", tuple(wrong), warning=True))
    if table.left_out:
        rows = tuple((entry.source, entry.reason) for entry in table.left_out)
        blocks.append(Table("left_out", "Left out", ("run", "why"), rows, (False, False)))
    if notes := (*comparison.notes, *table.notes, *_hints(comparison)):
        blocks.append(Sentences("Notes", notes))
    if comparison.method:
        blocks.append(Sentences("Method", comparison.method))
    return Document(_title(comparison), tuple(blocks))


def _title(comparison: Comparison) -> str:
    table = comparison.table
    data = list(dict.fromkeys(str(run.protocol["dataset"]) for run in table.runs if "dataset" in run.protocol))
    splits = list(dict.fromkeys(column.split for column in comparison.columns))
    of = f", {', '.join(data[:3])}" if data else ""
    runs, groups = len(table.runs), len(table.groups)
    counted = f"{runs} run{'s' * (runs != 1)}" + (f" in {groups} group{'s' * (groups != 1)}" if runs != groups else "")
    return f"Comparison of {counted}{of}{f', {splits[0]}' if splits else ''}"


def _names(pair: Pair) -> str:
    return f"{pair.first} and {pair.second}"


def _one_line(error: SegbenchError) -> str:
    return f"{error.found}. Expected: {error.expected}. To do: {error.action}."


def _hints(comparison: Comparison) -> list[str]:
    table = comparison.table
    if len(comparison.pairs) > DETAILED:
        return [
            "With many pairs only the leading score is shown (metric=NAME shows others); csv and json contain all "
            "scores, classes and images, as do comparisons of two or three groups."
        ]
    if len(table.groups) == 1 and len(table.runs) > 1:
        return ["The runs differ only in their seed, so there are no groups to compare; seeds=apart compares the runs."]
    return []


def directions(comparison: Comparison) -> dict[str, bool]:
    """Whether a larger score is better, by column key; scores that no run describes are left out."""
    wanted = {column.key for column in comparison.columns}
    known: dict[str, bool] = {}
    for run in comparison.table.runs:
        if wanted <= known.keys():
            break
        try:
            infos = score_infos(run)
        except SegbenchError:
            continue
        for key in wanted - known.keys():
            if info := infos.get(key.split("/", 1)[-1]):
                known[key] = info.higher_is_better
    return known


def _scores(comparison: Comparison) -> list[Table]:
    groups = comparison.table.groups
    if not groups:
        return []
    return _as_columns(comparison) if len(groups) <= SIDE_BY_SIDE else [_as_rows(comparison)]


def show_summary(summary: Summary) -> str:
    """Mean and standard deviation of a score."""
    if not summary.n:
        return ""
    return spread(summary.mean, summary.sd if summary.n > 1 else None)


def _as_columns(comparison: Comparison) -> list[Table]:
    groups, tables = comparison.table.groups, []
    heads = tuple(group.name for group in groups)
    if comparison.table.differing:
        rows = [(key, *(show_setting(group.settings[key]) for group in groups)) for key in comparison.table.differing]
        tables.append(Table("settings", "What differs", ("setting", *heads), tuple(rows), (False,) * (len(heads) + 1)))
    better = directions(comparison)
    rows = [("runs", "", *(_members(group) for group in groups))]
    for column in comparison.columns:
        rows.append((column.name, _better(better, column), *(show_summary(group.summary(column)) for group in groups)))
    caption = tuple(f"{group.name}: {group.label}." for group in groups if group.label)
    if any(len(group.runs) > 1 for group in groups):
        caption += ("Mean ± standard deviation over the runs.",)
    numeric = (False, False, *(True for _ in groups))
    tables.append(Table("scores", "Scores", ("score", "better", *heads), tuple(rows), numeric, caption))
    return tables


def _members(group: Group) -> str:
    seeds = [str(run.seed) for run in group.runs if run.seed is not None]
    if not seeds:
        return str(len(group.runs))
    return f"{len(group.runs)} (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})"


def _better(better: dict[str, bool], column: Column) -> str:
    return {True: "higher", False: "lower", None: ""}[better.get(column.key)]


def _as_rows(comparison: Comparison) -> Table:
    table, columns, better = comparison.table, comparison.columns, directions(comparison)
    leading = columns[0] if columns else None

    def place(group: Group) -> tuple[bool, float]:
        mean = group.summary(leading).mean if leading else 0.0
        return mean != mean, -mean if leading and better.get(leading.key, True) else mean

    arrow = {True: " ↑", False: " ↓", None: ""}
    rows = [
        (
            group.name,
            str(len(group.runs)),
            *(show_setting(group.settings[key]) for key in table.differing),
            *(show_summary(group.summary(column)) for column in columns),
        )
        for group in sorted(table.groups, key=place)
    ]
    header = ("group", "runs", *table.differing, *(c.name + arrow[better.get(c.key)] for c in columns))
    numeric = (False, True, *(False for _ in table.differing), *(True for _ in columns))
    caption: tuple[str, ...] = ()
    if leading:
        caption += (f"Best {leading.name} first; ↑ higher is better, ↓ lower is better.",)
    if any(len(group.runs) > 1 for group in table.groups):
        caption += ("Mean ± standard deviation over the runs.",)
    fixed = 2 + len(table.differing)
    return Table("scores", "Scores", header, tuple(rows), numeric, caption, fixed)


def _differences(comparison: Comparison) -> Table:
    pairs = comparison.pairs
    if len(pairs) > DETAILED and not comparison.settings.metrics:
        # With many pairs only the leading score; metric=NAME selects another.
        differences = [pair.differences[0] for pair in pairs if pair.differences]
    else:
        differences = [d for pair in pairs for d in pair.differences]
    return _difference_table(
        "differences", "Differences", differences, len(comparison.pairs) > 1, comparison.settings.confidence
    )


def _difference_table(
    name: str, title: str, differences: Sequence[Difference], several_pairs: bool, confidence: float
) -> Table:
    beside = any(d.seeds_only is not None for d in differences)
    adjusted = any(d.p_adjusted != d.p for d in differences if d.p == d.p)
    first, second = (
        (differences[0].first, differences[0].second) if not several_pairs and differences else ("1st", "2nd")
    )
    header = (
        *(("pair",) if several_pairs else ()),
        "class" if name == "classes" else "score",
        first,
        second,
        f"{second} - {first}",
        f"{percent(confidence)} interval",
        "p",
        *(("p (seeds only)",) if beside else ()),
        *(("p (adjusted)",) if adjusted else ()),
        "better",
    )
    rows = [_difference_row(d, several_pairs, beside, adjusted, name == "classes", confidence) for d in differences]
    caption: tuple[str, ...] = ("In brackets: not shown to be more than noise.",)
    if beside:
        caption += ("! the images are few or not independent: see p (seeds only).",)
    undefined = [d for d in differences if d.undefined > 0.05]
    if undefined:
        caption += (
            "Not defined in some draws, which the interval leaves out: "
            + ", ".join(f"{d.name} ({d.undefined:.0%})" for d in undefined)
            + ".",
        )
    text = 2 if several_pairs else 1
    numeric = (*(False for _ in range(text)), *(True for _ in range(len(header) - text - 1)), False)
    return Table(name, title, header, tuple(rows), numeric, caption)


def _difference_row(
    d: Difference, several: bool, beside: bool, adjusted: bool, of_class: bool, confidence: float
) -> tuple[str, ...]:
    flag = "" if d.seeds_only is None else " !"
    p_seeds = "" if d.seeds_only is None else _bare(d.seeds_only.p)
    return (
        *((f"{d.first}, {d.second}",) if several else ()),
        d.class_name or d.name if of_class else d.name,
        number(d.scores[0]),
        number(d.scores[1]),
        number(d.difference, sign=True),
        f"{span(d.low, d.high)}{flag}",
        _bare(d.p),
        *((p_seeds,) if beside else ()),
        *((_bare(d.p_adjusted),) if adjusted else ()),
        "" if d.better is None else d.better if d.is_shown(confidence) else f"({d.better})",
    )


def _plan(pair: Pair) -> Table:
    assert pair.plan is not None
    plan, score = pair.plan, pair.plan.key.split("/", 1)[1]

    def runs(counts: tuple[int, int]) -> str:
        first, second = counts
        return f"{first} run{'s' * (first > 1)} a side" if first == second else f"{first} and {second} runs"

    header = (
        "images",
        *(() if plan.seeds_unknown else (f"runs a side for {number(plan.difference)}",)),
        *(f"smallest, {runs(counts)}" for counts in plan.runs),
    )
    rows = [
        (
            str(row.images),
            *(() if plan.seeds_unknown else ("no number" if row.seeds is None else str(row.seeds),)),
            *(number(smallest) for smallest in row.smallest),
        )
        for row in plan.rows
    ]
    caption = (f"Smallest: the difference in {score} that is shown with 80 % power.",)
    return Table("plan", f"How much is enough, {_names(pair)}", header, tuple(rows), (True,) * len(header), caption)


def _bare(p: float) -> str:
    return p_value(p).removeprefix("p = ").removeprefix("p ")


def _images(pair: Pair) -> Table:
    leading = (*pair.differences, *pair.classes)[0]
    header = ("image", pair.first, pair.second, f"{pair.second} - {pair.first}", "all others")
    rows = [
        (
            image.id,
            number(image.scores[0]),
            number(image.scores[1]),
            number(image.difference, sign=True),
            number(image.without, sign=True),
        )
        for image in pair.changed
    ]
    caption = (
        f"{leading.name} of each image alone, for inspection, not for averaging; 'all others' is the difference "
        "without the image.",
    )
    title = f"Images that changed most, {_names(pair)}"
    return Table("images", title, header, tuple(rows), (False, True, True, True, True), caption)

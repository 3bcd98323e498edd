"""A comparison on a terminal; wide tables show what fits and name what they leave out."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

from segbench.compare.document import Document, Sentences, Table

if TYPE_CHECKING:
    from segbench.runtime.console import Console

_ROWS = 40
PIPE_WIDTH = 160
"""For files and pipes, which do not wrap."""


def show(shown: Document, console: Console) -> None:
    """Print the document."""
    console.print(shown.title, style="bold", soft_wrap=True)
    for block in shown.blocks:
        console.print()
        if isinstance(block, Sentences):
            console.print(block.title, style="bold yellow" if block.warning else "bold")
            for sentence in block.sentences:
                _bullet(sentence, console)
        else:
            _table(cut(block, console.width), console)


def _bullet(sentence: str, console: Console) -> None:
    from rich.table import Table as Grid

    grid = Grid.grid(padding=(0, 1))
    grid.add_row("-", sentence)
    console.print(grid)


def _table(table: Table, console: Console) -> None:
    from rich import box
    from rich.table import Table as RichTable

    rich = RichTable(
        title=table.title,
        title_style="bold",
        caption="\n".join(table.caption) if table.caption else None,
        caption_style="none",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for name, right in zip(table.header, table.numeric, strict=True):
        rich.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in table.rows:
        rich.add_row(*row)
    console.print(rich)


def cut(table: Table, width: int) -> Table:
    """The part of a table that fits a terminal of `width` characters; the caption says what is left out."""
    said: tuple[str, ...] = ()
    kept = len(table.header)
    if table.fixed:
        widths = [max(map(len, column)) + 3 for column in zip(table.header, *table.rows[:_ROWS], strict=True)]
        while kept > table.fixed + 1 and sum(widths[:kept]) > width:
            kept -= 1
    if len(table.header) > kept:
        said += (f"{len(table.header) - kept} further columns: metric=NAME, or another format.",)
    if len(table.rows) > _ROWS:
        said += (f"{len(table.rows) - _ROWS} further rows: another format, e.g. output=comparison.html.",)
    return replace(
        table,
        header=table.header[:kept],
        rows=tuple(row[:kept] for row in table.rows[:_ROWS]),
        numeric=table.numeric[:kept],
        caption=(*table.caption, *said),
    )


def as_text(shown: Document) -> str:
    """The same as plain text."""
    from segbench.runtime.console import Console

    out = io.StringIO()
    show(shown, Console(file=out, width=PIPE_WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"

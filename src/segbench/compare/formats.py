"""A comparison as Markdown, LaTeX (booktabs), CSV, JSON or HTML; `terminal.py` has the terminal."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from segbench.compare.comparison import Comparison
from segbench.compare.document import Document, Sentences, Table, document
from segbench.compare.rows import as_json, tables
from segbench.compare.terminal import as_text
from segbench.display.digits import number
from segbench.display.html import page
from segbench.errors import SegbenchError, printable

SUFFIXES = {
    ".txt": "terminal",
    ".md": "markdown",
    ".tex": "latex",
    ".csv": "csv",
    ".json": "json",
    ".html": "html",
    ".htm": "html",
}
"""Formats by file suffix."""


def write(comparison: Comparison, form: str, table: str | None = None) -> str:
    """The comparison in a format.

    Args:
        comparison: the comparison.
        form: one of `FORMATS`.
        table: only this table; CSV, which holds one table, takes `runs` if None.

    Raises:
        SegbenchError: no such format or table.
    """
    if form == "csv":
        return as_csv(comparison, table or "runs")
    if form == "json":
        data = as_json(comparison) if table is None else as_json_table(comparison, table)
        return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    if form not in _DOCUMENTS:
        raise SegbenchError(f"format={form}", f"one of {', '.join(FORMATS)}", "correct format=")
    return _DOCUMENTS[form](chosen(comparison, table))


def chosen(comparison: Comparison, table: str | None) -> Document:
    """The document, or one of its tables.

    Raises:
        SegbenchError: it has no such table.
    """
    whole = document(comparison)
    if table is None:
        return whole
    found = tuple(block for block in whole.blocks if isinstance(block, Table) and block.name == table)
    if table == "runs":
        found = (_runs(comparison),)
    if not found:
        there = list(dict.fromkeys(block.name for block in whole.blocks if isinstance(block, Table)))
        raise _no_table(table, ["runs", *there])
    return replace(whole, blocks=found)


def _runs(comparison: Comparison) -> Table:
    rows = tables(comparison)["runs"]
    header = tuple(rows[0]) if rows else ("run",)
    numeric = tuple(isinstance(rows[0][key], float) for key in header) if rows else (False,)
    cells = tuple(tuple(_cell(row[key]) for key in header) for row in rows)
    return Table("runs", "Runs", header, cells, numeric, fixed=2)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return number(value) if isinstance(value, float) else str(value)


def _no_table(table: str, there: list[str]) -> SegbenchError:
    return SegbenchError(f"table={table}", f"a table of this comparison: {', '.join(there)}", "correct table=")


def as_csv(comparison: Comparison, table: str) -> str:
    """One table with all digits, undefined scores empty.

    Text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    known = tables(comparison)
    if table not in known:
        raise _no_table(table, list(known))
    rows = known[table]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = list(dict.fromkeys(key for row in rows for key in row))
    lines: list[list[Any]] = [header, *([row.get(key) for key in header] for row in rows)]
    writer.writerows([_no_formula(value) for value in line] for line in lines)
    return out.getvalue()


def _no_formula(value: Any) -> Any:
    if value is None or value != value:
        return ""
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) and not _is_number(text) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_json_table(comparison: Comparison, table: str) -> Any:
    """One table as a list of mappings, undefined scores null."""
    known = tables(comparison)
    if table not in known:
        raise _no_table(table, list(known))
    return [
        {key: None if isinstance(value, float) and value != value else value for key, value in row.items()}
        for row in known[table]
    ]


def as_markdown(shown: Document) -> str:
    """Headings, pipe tables and lists."""
    parts = [f"# {_pipes(shown.title)}"]
    for block in shown.blocks:
        parts.append(f"## {_pipes(block.title)}")
        if isinstance(block, Sentences):
            # At its start a sign would begin a heading, a quotation or a list.
            parts.append("\n".join("- " + re.sub(r"^(?=[#>+-])", r"\\", _pipes(text)) for text in block.sentences))
        else:
            lines = [block.header, tuple("---:" if right else "---" for right in block.numeric), *block.rows]
            parts.append("\n".join("| " + " | ".join(map(_pipes, line)) + " |" for line in lines))
            parts += [" ".join(map(_pipes, block.caption))] if block.caption else []
    return "\n\n".join(parts) + "\n"


def _pipes(text: str) -> str:
    return printable(" ".join(re.sub(r"([\\|*_`<\[\]&~$])", r"\\\1", text).split()))


def as_latex(shown: Document) -> str:
    """Tables and sentences; they need only the package booktabs."""
    parts = [f"% {printable(' '.join(shown.title.split()))}", "% \\usepackage{booktabs}"]
    for block in shown.blocks:
        parts.append(_latex_table(block) if isinstance(block, Table) else _latex_text(block))
    return "\n\n".join(parts) + "\n"


def _latex_table(table: Table) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "    " + " & ".join(_tex(cell) for cell in cells) + r" \\"

    caption = " ".join([f"{table.title}.", *table.caption])
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_tex(caption)}}}",
            rf"  \begin{{tabular}}{{{''.join('r' if right else 'l' for right in table.numeric)}}}",
            r"    \toprule",
            line(table.header),
            r"    \midrule",
            *map(line, table.rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_text(block: Sentences) -> str:
    items = "\n".join(f"  \\item {_tex(sentence)}" for sentence in block.sentences)
    return f"\\paragraph{{{_tex(block.title)}}}\n\\begin{{itemize}}\n{items}\n\\end{{itemize}}"


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "<": r"$<$",
    ">": r"$>$",
    # After a line's end these would be its arguments.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
} | {mark: f"\\{mark}" for mark in "&%$#_"}


def _tex(text: str) -> str:
    return " ".join("".join(_TEX.get(letter, letter) for letter in printable(" ".join(text.split()))).split())


def as_html(shown: Document) -> str:
    """One self-contained file: sortable tables, light and dark, printable."""
    return page("comparison.html", shown.title, blocks=shown.blocks)


_DOCUMENTS: dict[str, Callable[[Document], str]] = {
    "terminal": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "html": as_html,
}
FORMATS = (*_DOCUMENTS, "csv", "json")
"""All formats."""

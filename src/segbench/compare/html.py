"""A comparison as one self-contained HTML file: sortable tables, light and dark, printable."""

from __future__ import annotations

from html import escape

from segbench.compare.document import Document, Sentences, Table

_STYLE = """
:root { color-scheme: light dark; --line: #c9ced6; --soft: #f3f5f8; --text: #1b1f24; --ground: #fff; --warn: #8a4b00; }
@media screen and (prefers-color-scheme: dark) {
  :root { --line: #3b424c; --soft: #1d2229; --text: #e4e8ee; --ground: #12161b; --warn: #f0b465; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground);
       max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.warning h2 { color: var(--warn); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; padding-top: .4rem; font-size: .85rem; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid var(--text); white-space: nowrap; }
tbody th { font-weight: 600; overflow-wrap: normal; }
tbody tr:nth-child(even) { background: var(--soft); }
.number { text-align: right; white-space: nowrap; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button:focus-visible { outline: 2px solid; outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
@media print { :root { color-scheme: light; } body { max-width: none; margin: 0; font-size: 10pt; }
  .scroll { overflow: visible; } tr { break-inside: avoid; } h2 { break-after: avoid; }
  table { font-size: 7.5pt; } th, td { padding: .1rem .3rem; } thead th, .number { white-space: normal; } }
"""

_SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => {
      const text = row.cells[column].textContent.trim(), number = parseFloat(text.replace(/^[<>] /, ""));
      return [text === "" || text === "undefined", Number.isNaN(number) ? null : number, text];
    };
    const body = table.tBodies[0];
    const rows = [...body.rows].map(row => [value(row), row]);
    rows.sort(([a], [b]) => {
      if (a[0] !== b[0]) return a[0] - b[0];
      const order = a[1] !== null && b[1] !== null ? a[1] - b[1] : a[2].localeCompare(b[2]);
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  }));
}
"""


def as_html(shown: Document) -> str:
    """The whole file."""
    blocks = "\n".join(section(block) if isinstance(block, Table) else _sentences(block) for block in shown.blocks)
    return page(shown.title, blocks)


def page(title: str, body: str, style: str = "") -> str:
    """A self-contained file.

    Args:
        title: of the file, and its first heading.
        body: HTML.
        style: further CSS, after that of tables and sentences.
    """
    title = escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{_STYLE}{style}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def section(shown: Table) -> str:
    """A heading and its table."""
    return f"<section>\n<h2>{escape(shown.title)}</h2>\n{table(shown)}\n</section>"


def table(shown: Table) -> str:
    """A table whose columns sort by mouse or keyboard."""
    kinds = ['class="number"' if right else "" for right in shown.numeric]
    head = "".join(
        f'<th scope="col" {kind}><button type="button" title="sort">{escape(name)}</button></th>'
        for name, kind in zip(shown.header, kinds, strict=True)
    )
    rows = "\n".join(f"<tr>{_cells(row, kinds)}</tr>" for row in shown.rows)
    caption = f"<caption>{escape(' '.join(shown.caption))}</caption>" if shown.caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(shown.title)}">\n<table>{caption}\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def _cells(row: tuple[str, ...], kinds: list[str]) -> str:
    first = f'<th scope="row" {kinds[0]}>{escape(row[0])}</th>'
    return first + "".join(f"<td {kind}>{escape(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True))


def _sentences(shown: Sentences) -> str:
    items = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in shown.sentences)
    kind = ' class="warning"' if shown.warning else ""
    return f"<section{kind}>\n<h2>{escape(shown.title)}</h2>\n<ul>\n{items}\n</ul>\n</section>"

"""Parts of a page, each with its numbers for readers who cannot see the picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import yaml

from segbench.compare.document import Table
from segbench.compare.html import page, table

MAX_SIDE = 1600
"""Pictures are scaled down to this many pixels: a dozen of them then take well under 5 MB."""

STYLE = """
body { max-width: 120rem; } section > ul, nav { max-width: 75rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: 0; list-style: none; }
a { color: inherit; } a:focus-visible, summary:focus-visible { outline: 2px solid; outline-offset: 2px; }
figure { margin: 0 0 1rem; } figcaption { font-size: .85rem; } figure svg, figure img { max-width: 100%; height: auto; }
figure img { image-rendering: auto; border: 1px solid var(--line); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(70rem, 100%), 1fr)); gap: 1rem; }
.pictures img { width: 100%; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start; }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; font-size: .8rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; } dt { font-weight: 600; } dd { margin: 0;
  overflow-wrap: anywhere; }
summary { cursor: pointer; } th, td { overflow-wrap: normal; }
@media print { nav, button::after { display: none; } figure { break-inside: avoid; } pre { white-space: pre-wrap; }
  thead th { overflow-wrap: anywhere; } }
"""


def whole_page(title: str, sections: Mapping[str, str]) -> str:
    """The file: a heading, links to the sections, and the sections that are not empty.

    Args:
        title: of the page.
        sections: HTML by heading.
    """
    shown = {heading: body for heading, body in sections.items() if body}
    links = "".join(f'<li><a href="#{_anchor(heading)}">{escape(heading)}</a></li>' for heading in shown)
    bodies = "".join(
        f'<section id="{_anchor(heading)}" aria-labelledby="h-{_anchor(heading)}">'
        f'<h2 id="h-{_anchor(heading)}">{escape(heading)}</h2>{body}</section>'
        for heading, body in shown.items()
    )
    return page(title, f'<nav aria-label="sections"><ul>{links}</ul></nav>{bodies}', STYLE)


def _anchor(heading: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in heading.lower())


def chart(svg: str, caption: str, numbers: Table | None = None) -> str:
    """A drawing with its caption, and its numbers to unfold."""
    said = escape(caption)
    behind = "" if numbers is None else f"<details><summary>numbers</summary>{table(numbers)}</details>"
    return f'<figure><div role="img" aria-label="{said}">{svg}</div><figcaption>{said}</figcaption>{behind}</figure>'


def picture(path: Path, caption: str) -> str:
    """A picture file inside the page, as JPEG of at most `MAX_SIDE` pixels."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        return f"<p>{escape(path.name)} cannot be read.</p>"
    scale = MAX_SIDE / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    encoded = base64.b64encode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()).decode()
    said = escape(caption)
    size = f'width="{image.shape[1]}" height="{image.shape[0]}"'
    source = f'src="data:image/jpeg;base64,{encoded}"'
    return f'<figure><img {size} alt="{said}" {source}><figcaption>{said}</figcaption></figure>'


def facts(pairs: Mapping[str, object]) -> str:
    """Names and values; empty values are left out."""
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in pairs.items()
        if value not in (None, "")
    )
    return f"<dl>{items}</dl>" if items else ""


def folded(summary: str, content: Mapping[str, object] | Sequence[object]) -> str:
    """YAML, folded until opened."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def sentences(said: Sequence[str]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{escape(each)}</li>" for each in said) + "</ul>" if said else ""

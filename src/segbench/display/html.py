"""HTML pages out of templates that escape every string: `templates/`, by jinja2."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from segbench.errors import printable

if TYPE_CHECKING:
    from jinja2 import Environment


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("segbench.display"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def part(name: str, *values: Any) -> Markup:
    """A piece of a page: a macro of `templates/parts.html`. A string is escaped unless it is `Markup`."""
    made: Markup = getattr(_templates().get_template("parts.html").module, name)(*values)
    return made.strip()


def page(template: str, title: str, **values: Any) -> str:
    """A self-contained file whose browser runs its own script and fetches nothing.

    Args:
        template: one of `templates/`, which extends page.html.
        title: of the file, and its first heading.
        values: for the template.
    """
    script = Markup((Path(__file__).parent / "templates" / "page.js").read_text("utf-8"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Drawings carry styles of their own, which cannot fetch anything either.
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return _templates().get_template(template).render(title=title, policy=policy, script=script, **values) + "\n"

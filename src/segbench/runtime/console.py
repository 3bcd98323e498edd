"""Text on a terminal as text."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text

from segbench.errors import printable


class Console(rich.console.Console):
    """rich's console without markup, emoji codes and colours of numbers; control characters are shown escaped.

    Names of runs, classes and files are printed that strangers chose. A `Text` is printed as it is.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """As rich does, what cannot be printed escaped."""
        return super().render_str(printable(text), **settings)

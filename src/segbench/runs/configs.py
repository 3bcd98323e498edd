"""Configurations of many runs, read quickly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from segbench.config.former import with_current_targets
from segbench.config.handed_over import parse_config, text_of
from segbench.errors import SegbenchError

_TOP = re.compile(r"^(?=[^\s#-])", re.MULTILINE)
"""Where a key at the top level begins; the items of its list may stand in the first column too."""


class Configs:
    """Configurations that were read, with targets by their current names, and their parts.

    The runs of a sweep differ in a line or two, and parsing YAML dominates the time for a thousand of them: equal
    top-level parts are parsed once.
    """

    def __init__(self) -> None:
        self._whole: dict[Path, dict[str, Any]] = {}
        self._parts: dict[str, Any] = {}

    def of(self, directory: Path, source: str | None = None) -> dict[str, Any]:
        """The content of a run's config.yaml; do not modify it, other configurations share its parts.

        Args:
            directory: of the run.
            source: the file's name in errors; None: its path.

        Raises:
            SegbenchError: it is damaged, holds an interpolation, or is no mapping.
        """
        if directory not in self._whole:
            file = directory / "config.yaml"
            source = source or str(file)
            read = self.parse(text_of(file, source), source)
            if not isinstance(read, dict):
                raise SegbenchError(f"{source} is not a mapping", "a run's configuration", "use another run")
            self._whole[directory] = read
        return self._whole[directory]

    def parse(self, text: str, source: str) -> Any:
        """The plain values of a text.

        Raises:
            SegbenchError: it is damaged, or holds an interpolation.
        """
        try:
            parts = [self._part(part, source) for part in _TOP.split(text) if part.strip()]
        except SegbenchError:
            parts = []
        if not parts or not all(isinstance(part, dict) and len(part) == 1 for part in parts):
            # Anchors, documents, or no mapping.
            return with_current_targets(parse_config(text, source))
        return {key: value for part in parts for key, value in part.items()}

    def _part(self, text: str, source: str) -> Any:
        if text not in self._parts:
            self._parts[text] = with_current_targets(parse_config(text, source))
        return self._parts[text]

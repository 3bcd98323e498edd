"""Files written whole: a reader finds the old content or the new one."""

from __future__ import annotations

import os
from pathlib import Path

from segbench.errors import SegbenchError


def write_whole(path: Path, text: str) -> None:
    """Write a file of text, or leave what was there; its folder is made.

    Raises:
        SegbenchError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise SegbenchError(
            f"{path} cannot be written: {error.strerror or error}",
            "a file in a folder that this user may write to",
            "choose another output=FILE",
        ) from error

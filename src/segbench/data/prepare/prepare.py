"""Fetch a data set, check it and lay it out, once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segbench.data.prepare.downloads import SILENT, Listener, Record, locked
from segbench.data.prepare.fetch import fetch
from segbench.data.prepare.recipes import PARTS, Part
from segbench.errors import SegbenchError

DOWNLOADS = "downloads"
"""Folder under the root for fetched files."""


def prepare(
    name: str,
    root: Path,
    parts: Sequence[str] = (),
    mirror: str | None = None,
    listener: Listener = SILENT,
    wait: float = 2.0,
) -> None:
    """Fetch, check and lay out a data set; parts that are ready are left alone.

    Args:
        name: a key of `PARTS`.
        root: the data set's folder; downloads are kept in `downloads` inside it.
        parts: some of the data set's parts; empty: the default ones.
        mirror: an address to try first: MIRROR/NAME for each file.
        listener: receives messages and progress.
        wait: as in `fetch`.

    Raises:
        SegbenchError: an unknown name or part, or what `fetch` and `unpack` raise.
    """
    if name not in PARTS:
        raise SegbenchError(
            f"no recipe for data set {name}",
            f"one of {', '.join(PARTS)}",
            "drawn data sets need no recipe; for others see their page in the documentation",
        )
    unknown = [part for part in parts if part not in PARTS[name]]
    if unknown:
        raise SegbenchError(f"parts={','.join(unknown)}", f"some of {', '.join(PARTS[name])}", "correct parts=")
    chosen = {key: part for key, part in PARTS[name].items() if (key in parts if parts else part.default)}
    with locked(root, listener):
        for key, part in chosen.items():
            _prepare_part(f"{name} {key}", part, root, mirror, listener, wait)


def _prepare_part(name: str, part: Part, root: Path, mirror: str | None, listener: Listener, wait: float) -> None:
    record, folder = Record(root / DOWNLOADS), root / DOWNLOADS
    entries = record.read()
    # A half-unpacked part looks ready too; the record distinguishes it from files that the user put there.
    begun = any(entries.get(remote.name, {}).get("unpacked") is False for remote in part.remotes)
    if part.is_ready(root) and not begun:
        listener.say(f"{name}: ready in {root}")
        return
    paths = [fetch(remote, folder, listener, mirror, wait=wait) for remote in part.remotes]
    part.convert(paths, root, listener)
    if not part.is_ready(root):
        missing = [pattern for pattern in part.gives if not any(root.glob(pattern))]
        raise SegbenchError(
            f"{', '.join(path.name for path in paths)} gave no {', '.join(missing)} in {root}",
            "the publisher's own archive",
            f"check the contents of {root}; the archive's layout may have changed",
        )
    for remote in part.remotes:
        record.update(remote.name, unpacked=True)
    listener.say(f"{name}: ready in {root}; {folder} may be deleted except for {record.name}")

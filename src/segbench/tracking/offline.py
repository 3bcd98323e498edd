"""Runs that W&B's client kept on this machine, and sending them; what was sent has a mark beside it."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.errors import SegbenchError, as_typed
from segbench.tracking.access import access, base_url, silence

FILES = "wandb_files.txt"
"""In a run directory: a line for each folder in which wandb keeps a leg of the run, relative where it lies inside."""
BATCH = 20
"""Legs of one call of the client."""
_BLOCK = 32768
_QUIET_S = 300.0
"""A living run writes at least every 15 seconds."""


@dataclass(frozen=True)
class Leg:
    """What wandb kept of a run from its start or a resume to its end or the next one.

    Attributes:
        folder: `offline-run-<time>-<id>` or `run-<time>-<id>`.
        file: the records.
    """

    folder: Path
    file: Path

    @property
    def online(self) -> bool:
        """Whether it was begun online, and so may be on the server already."""
        return not self.folder.name.startswith("offline-")

    @property
    def sent(self) -> bool:
        """Whether the client marked all of it as sent."""
        mark = self.file.with_name(f"{self.file.name}.synced")
        return mark.is_file() and mark.stat().st_mtime >= self.file.stat().st_mtime

    @property
    def ended(self) -> bool:
        """Whether the run's exit is its last word: nothing more will be written."""
        from wandb.proto import wandb_internal_pb2

        size = self.file.stat().st_size
        with self.file.open("rb") as file:
            # Records are in blocks, as in LevelDB's log; the first one begins with a header of seven bytes.
            start = max(0, size - 2 * _BLOCK) // _BLOCK * _BLOCK
            file.seek(start)
            content = file.read()
        for record in _records(content, 7 if start == 0 else 0):
            read = wandb_internal_pb2.Record()
            read.ParseFromString(record)
            if read.HasField("exit"):
                return True
        return False


def _records(content: bytes, at: int) -> Iterable[bytes]:
    part: bytes | None = None
    while at + 7 <= len(content):
        if (left := _BLOCK - at % _BLOCK) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        if not 1 <= kind <= 4:
            return
        # Whole, first, middle, last; what began before the first block read is skipped.
        part = (
            content[at + 7 : at + 7 + length]
            if kind in (1, 2)
            else None
            if part is None
            else part + (content[at + 7 : at + 7 + length])
        )
        at += 7 + length
        if kind in (1, 4) and part is not None:
            yield part
            part = None


def legs_of(directory: Path) -> list[Leg]:
    """The legs of a run and of its stages, from the oldest to the newest.

    Raises:
        SegbenchError: its file names a folder of somebody else's.
    """
    folders = {path.parent.absolute() for path in directory.glob("wandb/offline-run-*/run-*.wandb")}
    listed = directory / FILES
    for line in listed.read_text().splitlines() if listed.is_file() else ():
        folders.add(_allowed(directory, directory / line))
    legs = [Leg(folder, file) for folder in folders for file in folder.glob("run-*.wandb")]
    legs.sort(key=lambda leg: leg.folder.name.removeprefix("offline-"))
    for stage in sorted(directory.glob("stages/*/config.yaml")):
        legs = [*legs_of(stage.parent), *legs]
    return legs


def _allowed(directory: Path, folder: Path) -> Path:
    """A folder that a run's file names: inside the run, or where the user keeps such folders.

    Raises:
        SegbenchError: it lies elsewhere; what a file that was handed over names is not sent.
    """
    own = [directory, *([Path(place)] if (place := os.environ.get("WANDB_DIR")) else [])]
    if not any(folder.resolve().is_relative_to(root.resolve()) for root in own):
        raise SegbenchError(
            f"{directory / FILES}: {folder}",
            "folders inside the run, or below WANDB_DIR",
            f"if you trust it: WANDB_DIR={as_typed(folder.parent)} segbench sync {as_typed(directory)}",
        )
    return folder.absolute()


@dataclass(frozen=True)
class Sent:
    """What became of the legs of some runs.

    Attributes:
        sent: now.
        before: sent earlier.
        online: begun online, and left alone.
        running: still written, and left for later.
        failed: not sent, with the client's last words.
    """

    sent: Sequence[Leg]
    before: Sequence[Leg]
    online: Sequence[Leg]
    running: Sequence[Leg]
    failed: Sequence[tuple[Leg, str]]


def send(runs: Iterable[tuple[Path, bool]], online: bool = False) -> Sent:
    """Send what was kept offline, in batches; interrupted, the same call goes on with the rest.

    Args:
        runs: directories, and whether a process may be at work there.
        online: also send legs that were begun online; the server gets again what it has.

    Raises:
        SegbenchError: no key, or no server that answers.
    """
    before, begun, running, due = list[Leg](), list[Leg](), list[Leg](), list[Leg]()
    for directory, alive in runs:
        legs = legs_of(directory)
        for leg in legs:
            writing = (
                alive and leg == legs[-1] and abs(time.time() - leg.file.stat().st_mtime) < _QUIET_S and not leg.ended
            )
            kind = before if leg.sent else begun if leg.online and not online else running if writing else due
            kind.append(leg)
    sent, failed = list[Leg](), list[tuple[Leg, str]]()
    if due:
        _require_server()
    for start in range(0, len(due), BATCH):
        batch = due[start : start + BATCH]
        _, words = _call([str(leg.folder) for leg in batch])
        for leg in batch:
            if leg.sent:
                sent.append(leg)
            else:
                failed.append((leg, words))
    return Sent(sent, before, begun, running, failed)


def _require_server() -> None:
    asked = access({"mode": "online"})
    if asked.mode != "online":
        raise SegbenchError(asked.why, "a key for the W&B server", "log in (wandb login), or set WANDB_API_KEY")
    if (reason := silence()) is not None:
        raise SegbenchError(
            f"{base_url()}: {reason}", "a W&B server that answers", "try again from a machine with a network"
        )


def send_legs(folders: Sequence[str]) -> bool:
    """Send legs of runs whole; whether the client says that it worked."""
    code, _ = _call(folders)
    return code == 0


def _call(folders: Sequence[str]) -> tuple[int, str]:
    # The client's public command; a mode of runs is not one of sending.
    environment = os.environ | {"WANDB_MODE": "online"}
    environment.pop("WANDB_SILENT", None)
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", "--include-synced", *folders]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return done.returncode, lines[-1] if lines else f"exit code {done.returncode}"

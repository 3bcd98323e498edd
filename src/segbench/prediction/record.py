"""How the files of an output folder were made: `predictions.jsonl`, from which an unfinished folder continues.

The first line, and any later one with `made_by`, holds the checkpoint and the settings; every other one an input and
its files. A line is written when the files are complete, before they get their final names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from segbench.config.flat import flatten
from segbench.config.handed_over import fitting
from segbench.data.files.zarr_images import is_zarr
from segbench.errors import SegbenchError, as_typed
from segbench.runtime.files import PARTIAL, refuse_links_out
from segbench.runtime.locks import InUse, Lock

NAME = "predictions.jsonl"


def _inside(file: str) -> str:
    if not file or "\0" in file or file.startswith("/") or ".." in file.split("/"):
        raise ValueError("no file inside the folder")
    return file


def _named(file: list[Any]) -> list[Any]:
    if not isinstance(file[0], str):
        raise ValueError("no path")
    return file


class _How(BaseModel):
    """A line that says how predictions are made."""

    made_by: dict[str, Any]


class _Made(BaseModel):
    """A line that says which files inside the folder were made of an input."""

    input: str
    files: list[Annotated[str, AfterValidator(_inside)]]
    stamp: list[Annotated[list[Any], Field(min_length=1), AfterValidator(_named)]]


class Record:
    """An output folder's record, held by one process.

    Args:
        folder: the output folder; created if missing.
        made_by: what determines the values of a prediction, plain containers; a folder with another one is refused.
        also: further facts to record.
        overwrite: replace what is there.

    Attributes:
        made_by: with `values` settled: as the folder was begun.

    Raises:
        SegbenchError: the folder holds predictions made otherwise, or another process is filling it.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any], also: Mapping[str, Any], overwrite: bool) -> None:
        self._folder, self._overwrite = folder, overwrite
        self._inputs: dict[str, dict[str, Any]] = {}
        self._ours: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        refuse_links_out(folder)
        try:
            self._lock = Lock.take(self.path, "a+")
        except InUse as held:
            raise SegbenchError(
                f"{folder} is being filled by {held.by}",
                "one segbench predict per folder",
                f"wait for it to end, or choose another output={held.or_else}",
            ) from held
        self._file = self._lock.file
        try:
            self._sweep()
            # Through JSON, like the recorded one.
            self.made_by: dict[str, Any] = json.loads(json.dumps(made_by))
            self._read(self.made_by, also)
        except BaseException:
            self.close()
            raise

    def _sweep(self) -> None:
        """Remove the unfinished files of a killed process: nobody else writes here now."""
        for parent, folders, files in os.walk(self._folder):
            for name in (*folders, *files):
                path = Path(parent, name)
                if not PARTIAL.fullmatch(name):
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            folders[:] = [name for name in folders if not is_zarr(Path(parent, name)) and not PARTIAL.fullmatch(name)]

    def _read(self, made_by: dict[str, Any], also: Mapping[str, Any]) -> None:
        self._file.seek(0)
        before: dict[str, Any] | None = None
        try:
            content = self._file.read()
        except UnicodeDecodeError as error:
            raise self._damaged(str(error)) from error
        for line in content.splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                # Cut off in the middle of a line; its input is predicted again.
                continue
            try:
                how = isinstance(entry, dict) and "made_by" in entry
                fitting(entry, str(self.path), _How if how else _Made)
            except SegbenchError as error:
                raise self._damaged(error.found.removeprefix(f"{self.path} is damaged: ")) from error
            if how:
                before, self._inputs = entry["made_by"], {}
            else:
                self._inputs[entry["input"]] = entry
                self._ours |= set(entry["files"])
        if content and not content.endswith("\n"):
            self._file.write("\n")
        if "values" in made_by:
            # Version 0.1.0 wrote indices, and did not record it.
            begun = (
                None if before is None or self._overwrite or not self._inputs else before.setdefault("values", "index")
            )
            made_by["values"] = made_by["values"] or begun or "own"
        if before == made_by:
            return
        if self._inputs and not self._overwrite:
            raise SegbenchError(
                f"{self._folder} holds predictions made otherwise: {_difference(before or {}, made_by)}",
                "one checkpoint and one way of predicting in a folder",
                "choose another output=, or replace what is there with overwrite=true",
            )
        self._inputs = {}
        self._append({"made_by": made_by} | dict(also))

    def _damaged(self, fault: str) -> SegbenchError:
        return SegbenchError(
            f"{self.path} is damaged: {fault}",
            "the file as segbench wrote it",
            f"choose another output=, or remove it: rm {as_typed(self.path)}",
        )

    def done(self, name: str, stamp: Sequence[Sequence[Any]]) -> list[Path] | None:
        """The files of an input, if they need not be made again.

        Args:
            name: of the input.
            stamp: current path, size and modification time of its files.

        Returns:
            None if never made, gone, made from a changed input, or to be overwritten.

        Raises:
            SegbenchError: they are of another input of the same name.
        """
        entry = self._inputs.get(name)
        if entry is None or self._overwrite:
            return None
        files = [self._folder / file for file in entry["files"]]
        if not all(file.exists() for file in files):
            return None
        before, now = entry["stamp"], [list(file) for file in stamp]
        # The folder may have moved between two runs.
        if [[Path(path).name, *rest] for path, *rest in before] == [[Path(path).name, *rest] for path, *rest in now]:
            return files
        if [path for path, *_ in before] != [path for path, *_ in now]:
            raise SegbenchError(
                f"{files[0]} is the prediction of {' and '.join(path for path, *_ in before)}",
                f"that of {' and '.join(path for path, *_ in now)}",
                "choose another output=, or replace it with overwrite=true",
            )
        return None

    def refuse_foreign(self, paths: Sequence[Path]) -> None:
        """Refuse to overwrite what is not a prediction of this folder.

        Raises:
            SegbenchError: a file exists that is not recorded.
        """
        foreign = [path for path in paths if path.exists() and str(path.relative_to(self._folder)) not in self._ours]
        if foreign and not self._overwrite:
            raise SegbenchError(
                f"{foreign[0]} exists already and is not in {self.path}",
                "a folder of predictions, or an empty one",
                "choose another output=, or replace what is there with overwrite=true",
            )

    def add(self, name: str, stamp: Any, paths: Sequence[Path]) -> None:
        """Record that an input's files are complete."""
        files = [str(path.relative_to(self._folder)) for path in paths]
        self._append({"input": name, "stamp": stamp, "files": files})
        self._ours |= set(files)

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Release the folder."""
        self._lock.release()


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    old, new = flatten(before), flatten(now)
    keys = [key for key in (*old, *(key for key in new if key not in old)) if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {_short(old.get(key))}, now {_short(new.get(key))}" for key in keys)


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)

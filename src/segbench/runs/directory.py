"""Reading and writing a run directory: one run, one directory, one owner.

```
RUN/
  config.yaml       the resolved configuration; never rewritten once the run has begun
  history.jsonl     a line for each leg of the run: its step, what changed, command, versions, machine
  overrides.yaml    the command line's overrides
  dataset.json      modalities, heads, protocol of the data set
  splits.json       the images' names by split
  digests.json      digests of some images of each split, to recognise data that moved
  provenance.json   command, git state, versions, hardware, and the settings that follow from it
  state.json        prepared | running | finished | failed | interrupted
  run.log           the log
  metrics.csv       scores and losses over steps
  checkpoints/      last.ckpt, the one before it (previous.ckpt), best.ckpt; validation.json: the last one's scores
  calibration.json  the polynomials that the reported checkpoint's probabilities go through, if the run calibrates them
  results.json      {"schema": 1, "metrics", "timing", "provenance", "protocol", "partial"}
  per_image.npz     counts of every image, from which any score is recomputed
  panels/           pictures
  predictions/      predicted images
  stages/           earlier stages that this run starts from
  wandb_id.txt      the id of the W&B run, if there is one
```
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeFloat

from segbench.config.former import with_current_targets
from segbench.config.handed_over import read_config, read_json, read_record, text_of
from segbench.config.record import Config, Recorded
from segbench.config.requests import OtherData
from segbench.errors import SegbenchError, as_typed
from segbench.runs.calibration import Calibration
from segbench.runs.configs import Configs
from segbench.runs.history import Leg, effective, read_legs
from segbench.runs.partial import Partial, counted_ids
from segbench.runs.schemas import fault_of_protocol, fault_of_provenance
from segbench.runtime.files import open_itself, refuse_links_out, remove_partials, write_whole, written_whole
from segbench.runtime.locks import InUse, Lock

log = logging.getLogger(__name__)

SCHEMA = 1
_LOCK_S = 1.0
"""How long to wait for a directory in use."""


class Metered(BaseModel):
    """energy.json of a training on a machine with meters.

    Attributes:
        joules: so far.
    """

    joules: NonNegativeFloat


class Run:
    """A run directory; `with` releases its lock at the end.

    Args:
        path: the directory; `create` and `open` check it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._lock: Lock | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def create(cls, path: Path, config: Recorded, overrides: list[str]) -> Run:
        """Lock a new directory for this process and record what will run in it.

        Args:
            path: a new or empty directory, or that of a run whose data or settings were refused before it wrote
                anything but a log: the corrected command reuses it and appends to the log.
            config: the resolved configuration.
            overrides: the command line's.

        Raises:
            SegbenchError: it cannot be written, another process uses it, or it holds a run already.
        """
        run = cls(path)
        try:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            run.lock()
            if (path / "config.yaml").exists() and not run._wrote_nothing():
                goes_on = f", or continue the run with: segbench train {as_typed('resume', path)}"
                raise SegbenchError(
                    f"{path} holds a run already",
                    "an empty or a new directory",
                    "choose another hydra.run.dir=DIR" + goes_on * (config.command == "segbench train"),
                )
            (path / "provenance.json").unlink(missing_ok=True)
            run._write("overrides.yaml", yaml.safe_dump(overrides))
            run._write("config.yaml", yaml.safe_dump(config.tree, sort_keys=False))
        except OSError as error:
            run.release()
            raise not_writable(path, error) from error
        except SegbenchError:
            run.release()
            raise
        return run

    def _wrote_nothing(self) -> bool:
        made = ("dataset.json", "metrics.csv", "results.json", "stages")
        failed = self.state() == "failed" and self.reason() is not None
        return failed and not any(self.checkpoints.iterdir()) and not any((self.path / name).exists() for name in made)

    @classmethod
    def prepare(cls, path: Path, config: Recorded, overrides: list[str]) -> Run:
        """Record what a later process will run in a directory; the lock is released.

        Raises:
            SegbenchError: as `create`.
        """
        run = cls.create(path, config, overrides)
        run.set_state("prepared")
        run.release()
        return run

    def begin(self, config: Recorded) -> None:
        """Record a prepared run's settings as settled on the machine where it begins; they are final."""
        self._write("config.yaml", yaml.safe_dump(config.tree, sort_keys=False))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open an existing run.

        Raises:
            SegbenchError: there is none.
        """
        run = cls(Path(path))
        if not (run.path / "config.yaml").is_file():
            raise SegbenchError(
                f"no run in {run.path}: config.yaml is missing",
                "a run directory, e.g. outputs/quickstart/<run id>",
                "give run=DIR as printed at the end of `segbench train`",
            )
        return run

    def lock(self) -> None:
        """Lock the directory for this process until `release`; the lock ends with the process, however it ends.

        Raises:
            SegbenchError: another process holds the lock, or a link leads out of the directory.
        """
        refuse_links_out(self.path)
        try:
            # A check of the lock holds it briefly, and the processes of a killed run may take a moment to end.
            self._lock = Lock.take(self.path / ".lock", patience_s=_LOCK_S)
        except InUse as held:
            raise SegbenchError(
                f"{self.path} is in use by {held.by}",
                "a separate directory for each run",
                f"choose another hydra.run.dir=DIR, or wait for that run to end{held.or_else}",
            ) from held
        # A run that was killed on another machine, too.
        for folder in (self.path, self.checkpoints):
            remove_partials(folder)

    def release(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def config(self, configs: Configs | None = None) -> Config:
        """The effective configuration of a training run: what it began with and what its continuations changed.

        Args:
            configs: configurations of other runs that were read already.

        Raises:
            SegbenchError: config.yaml or history.jsonl is damaged, or of no training run.
        """
        recorded, legs, steps = self.recorded() if configs is None else configs.of(self.path), self.legs(), None
        if not legs:
            with contextlib.suppress(SegbenchError):
                steps = self.results()["timing"].get("steps")
        return Config.of(effective(recorded, legs, steps), str(self.path / "config.yaml"))

    def legs(self) -> list[Leg]:
        """The legs of the run in history.jsonl; empty before it begins, and for runs of version 0.1.0."""
        path = self.path / "history.jsonl"
        return read_legs(text_of(path, str(path))) if path.exists() else []

    def add_leg(self, leg: Leg) -> None:
        """Append a leg that begins to history.jsonl."""
        with open_itself(self.path / "history.jsonl", "a") as file:
            file.write(leg.line())

    def recorded(self) -> dict[str, Any]:
        """The content of config.yaml, with targets by their current names: what a training run began with."""
        config: dict[str, Any] = with_current_targets(self.as_written())
        return config

    def as_written(self) -> dict[str, Any]:
        """The content of config.yaml, unchanged.

        Raises:
            SegbenchError: it is damaged, or holds an interpolation.
        """
        config = read_config(self.path / "config.yaml")
        if not isinstance(config, dict):
            raise SegbenchError(
                f"{self.path / 'config.yaml'} is not a mapping", "a run's configuration", "use another run"
            )
        return config

    def overrides(self) -> list[str]:
        """The overrides that the run was started with, as they were typed.

        Raises:
            SegbenchError: overrides.yaml is damaged.
        """
        path = self.path / "overrides.yaml"
        words = read_record(path) or []
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise _damaged(path, "no list of texts")
        return words

    def checkpoint(self, which: str | None = None) -> Path:
        """The file of a checkpoint.

        Args:
            which: `best`, `last`, or None for best if there is one, else last.

        Raises:
            SegbenchError: there is none.
        """
        if which not in (None, "best", "last"):
            raise SegbenchError(f"checkpoint={which}", "best or last", "correct checkpoint=")
        for name in ("best", "last") if which is None else (which,):
            path = self.checkpoints / f"{name}.ckpt"
            if path.is_file():
                return path
        there = sorted(path.name for path in self.checkpoints.glob("*.ckpt"))
        raise SegbenchError(
            f"no {which or 'best or last'} checkpoint in {self.checkpoints} (there: {', '.join(there) or 'none'})",
            "a run that wrote a checkpoint",
            "choose a checkpoint that exists with checkpoint=best|last, or train the run further",
        )

    def latest(self) -> list[Path]:
        """The checkpoints that a resume may continue from, newest first; empty if none was written."""
        paths = (self.checkpoints / f"{name}.ckpt" for name in ("last", "previous"))
        return [path for path in paths if path.is_file()]

    def set_aside(self) -> None:
        """Rename a damaged `last.ckpt` to `damaged.ckpt`, so that it does not become `previous.ckpt`."""
        os.replace(self.checkpoints / "last.ckpt", self.checkpoints / "damaged.ckpt")

    def state(self) -> str:
        """The run's state; `failed` if it was not recorded or the record was lost."""
        return str(self._state().get("state", "failed"))

    def reason(self) -> str | None:
        """The error that failed the run, if recorded."""
        reason = self._state().get("reason")
        return None if reason is None else str(reason)

    def _state(self) -> dict[str, Any]:
        try:
            return self._read("state.json")
        except SegbenchError:
            return {"reason": f"{self.path / 'state.json'} is damaged"}

    def set_state(self, state: str, reason: str | None = None) -> None:
        """Record the run's state: prepared, running, finished, failed (with a reason) or interrupted."""
        written = {"state": state, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        self._write("state.json", json.dumps(written | ({"reason": reason} if reason else {})))

    def ended_by(self) -> str | None:
        """What ended a finished run's training before its last step; None: nothing did."""
        by = self.results()["protocol"].get("ended_by")
        return None if by is None else str(by)

    def close(self, state: str, reason: str | None = None) -> None:
        """As `set_state`, at the end: a full disk does not hide the error that ended the run."""
        try:
            self.set_state(state, reason)
        except OSError as error:
            log.warning("%s cannot be written: %s", self.path / "state.json", error.strerror)

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Write provenance.json: what the run began with; history.jsonl has what a resume changed."""
        self._write("provenance.json", json.dumps(provenance, indent=2, default=str))

    def write_dataset(self, spec: Mapping[str, Any]) -> None:
        """Write dataset.json: modalities, classes and colours, for prediction without the data."""
        self._write("dataset.json", json.dumps(spec, indent=2))

    def dataset(self) -> dict[str, Any]:
        """The content of dataset.json, empty if the run has none yet."""
        return self._read("dataset.json")

    def write_deviations(self, found: Mapping[str, Any]) -> None:
        """Write deviations.json: how the run deviates from the paper that stands beside its scores."""
        self._write("deviations.json", json.dumps(found, indent=2))

    def deviations(self) -> dict[str, Any]:
        """The content of deviations.json, empty if no paper stands beside the run's scores."""
        return self._read("deviations.json")

    def write_splits(self, ids: Mapping[str, list[str]]) -> None:
        """Write splits.json: the images' names by split, in their order."""
        self._write("splits.json", json.dumps(ids, indent=0))

    def write_digests(self, digests: Mapping[str, str]) -> None:
        """Write digests.json: digests of some images and labels of each split."""
        self._write("digests.json", json.dumps(digests, indent=2))

    def digests(self) -> dict[str, str]:
        """The content of digests.json, empty if the run has none."""
        digests: dict[str, str] = self._read("digests.json", dict[str, str])
        return digests

    def splits(self) -> dict[str, list[str]]:
        """The content of splits.json, empty if the run has none."""
        names: dict[str, list[str]] = self._read("splits.json", dict[str, list[str]])
        return names

    def provenance(self) -> dict[str, Any]:
        """The content of provenance.json, empty if the run has none yet."""
        return self._read("provenance.json")

    def write_calibration(self, calibration: Calibration) -> None:
        """Write calibration.json."""
        self._write("calibration.json", calibration.model_dump_json(indent=2))

    def calibration(self) -> Calibration | None:
        """The content of calibration.json, None if the run has none."""
        path = self.path / "calibration.json"
        read: Calibration | None = read_json(path, Calibration) if path.is_file() else None
        return read

    def write_results(
        self,
        metrics: Mapping[str, float],
        timing: Mapping[str, float],
        provenance: Mapping[str, Any],
        protocol: Mapping[str, Any],
        partial: Partial | None = None,
        partial_validation: Partial | None = None,
    ) -> None:
        """Write results.json; undefined scores are null.

        Args:
            metrics: scores by key.
            timing: seconds and steps.
            provenance: command, code, versions, machine.
            protocol: how the scores were computed.
            partial: how much of the reported split was counted; None: each image once.
            partial_validation: likewise of the validations, which choose the best checkpoint.
        """
        finite = {key: value if np.isfinite(value) else None for key, value in metrics.items()}
        results = {
            "schema": SCHEMA,
            "metrics": finite,
            "timing": dict(timing),
            "provenance": dict(provenance),
            "protocol": dict(protocol),
            "partial": None if partial is None else partial.record(),
        }
        if partial_validation is not None:
            results["partial_validation"] = partial_validation.record()
        self._write("results.json", json.dumps(results, indent=2, default=str, allow_nan=False))

    @property
    def has_results(self) -> bool:
        """Whether it was scored."""
        return (self.path / "results.json").is_file()

    def results(self) -> dict[str, Any]:
        """The content of results.json.

        Raises:
            SegbenchError: the run has no results, or they are damaged: `metrics`, `timing`, `provenance` and `protocol`
                are mappings, and the first two are of numbers.
        """
        if not self.has_results:
            raise SegbenchError(
                f"no results.json in {self.path}",
                "a finished run",
                f"evaluate it: segbench evaluate {as_typed('run', self.path)}",
            )
        path = self.path / "results.json"
        read = self._read("results.json")
        for name in ("metrics", "timing", "provenance", "protocol"):
            read[name] = read.get(name) or {}
            if not isinstance(read[name], dict):
                raise _damaged(path, f"{name}: a {type(read[name]).__name__}")
        for name, fault_of in (("protocol", fault_of_protocol), ("provenance", fault_of_provenance)):
            if fault := fault_of(read[name]):
                raise _damaged(path, f"{name}.{fault}")
        for name in ("metrics", "timing"):
            if not all(isinstance(value, int | float | None) for value in read[name].values()):
                raise _damaged(path, f"{name}: values that are no numbers")
        return read

    def partial(self, trained: Run | None = None) -> Partial | None:
        """How much of the reported split was counted; None: each image once, or no way to know.

        Runs of version 0.1.0 do not record it: their per_image.npz and splits.json tell it.

        Args:
            trained: the run that this one is an evaluation of; None: it is none, or is found by its own record.

        Raises:
            SegbenchError: results.json is damaged.
        """
        results = self._read("results.json")
        try:
            if "partial" in results:
                return Partial.of_record(results["partial"])
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(self.path / "results.json", f"partial: {results['partial']}") from error
        counted = counted_ids(self.path / "per_image.npz")
        if counted is None:
            return None
        split, ids = counted
        names = self._scored_run(trained).splits().get(split)
        return None if names is None else Partial.of_ids(ids, names)

    def _scored_run(self, trained: Run | None) -> Run:
        written = self.as_written()
        if written.get("run") is None:
            return self
        # Arguments of the data set that only an evaluation was given choose other images.
        if (written.get("data") or {}).keys() - OtherData.model_fields.keys():
            return self
        return trained or Run(Path(str(written["run"])))

    def write_per_image(
        self, split: str, ids: list[str], counts: Mapping[str, NDArray[np.generic]], versions: Mapping[str, str]
    ) -> None:
        """Write per_image.npz.

        Args:
            split: the images' split.
            ids: N image names.
            counts: arrays with leading dimension N, by `<head>/<measure>/<key>`.
            versions: versions of the definitions, by `<head>/<measure>`.
        """
        named = {"ids": np.array(ids), "split": np.array(split), "versions": np.array(json.dumps(dict(versions)))}
        with written_whole(self.path / "per_image.npz") as partial, partial.open("wb") as file:
            np.savez_compressed(file, **named, **counts)  # type: ignore[arg-type]

    def _read(self, name: str, kind: Any = dict[str, Any]) -> dict[str, Any]:
        path = self.path / name
        try:
            read: dict[str, Any] = read_json(path, kind) if path.is_file() else {}
            return read
        except SegbenchError as error:
            raise _damaged(path, error.found.removeprefix(f"{path} is damaged: ")) from error

    def _write(self, name: str, text: str) -> None:
        write_whole(self.path / name, text)


def _damaged(path: Path, fault: object) -> SegbenchError:
    return SegbenchError(
        f"{path} is damaged: {' '.join(str(fault).split())}",
        "the file as the run wrote it",
        "restore it from a copy, or start a new run in another directory",
    )


def disk_full(path: Path, error: OSError) -> SegbenchError:
    """The error for a full disk."""
    return SegbenchError(
        f"{error.filename or path} cannot be written: {error.strerror}",
        "a disk with room for the run's log, tables and three checkpoints",
        f"free it, then: segbench train {as_typed('resume', path)}; a command that does not train is run again",
    )


def not_writable(path: Path, error: OSError) -> SegbenchError:
    """The error for an unwritable output directory."""
    return SegbenchError(
        f"{path} cannot be written: {error.strerror or error}",
        "a directory that this user may create and fill",
        "choose another hydra.run.dir=DIR (or output=DIR), or free the disk",
    )


class Refused(SegbenchError):
    """A run was not continued, and nothing in it has changed."""

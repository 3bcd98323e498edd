"""A sweep on disk: `sweep.yaml` lists the jobs; each job is a run directory beside it.

```
SWEEP/
  sweep.yaml   {"schema": 1, "segbench", "commands", "working_directory", "launcher", "search", "jobs"}
  0/ 1/ ...    run directories (segbench.runs.directory), each with its frozen config.yaml
  study.db     of a search
  slurm/       batch scripts and logs of a cluster
```
"""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TextIO

import yaml

from segbench import __version__
from segbench.config.former import with_former_targets
from segbench.config.packaged import read_yaml
from segbench.errors import SegbenchError
from segbench.runs.directory import not_writable
from segbench.runtime.files import write_whole
from segbench.sweep.job import Job, differing, digest_of

SCHEMA = 1


class Sweep:
    """A sweep directory; `with` locks it for this process.

    Args:
        path: the directory; `create` and `open` check it.
        working_directory: base of relative paths in the configurations.
        launcher: settings of the launcher.
        search: metric, direction, space and storage of a search; None for a plain sweep.
    """

    def __init__(
        self,
        path: Path,
        working_directory: Path,
        launcher: Mapping[str, Any],
        search: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.working_directory = path, working_directory
        self.launcher, self.search = dict(launcher), search
        self.commands: list[list[str]] = []
        self.jobs: list[Job] = []
        self._lock: TextIO | None = None

    @classmethod
    def open(cls, path: str | Path) -> Sweep:
        """Open an existing sweep.

        Raises:
            SegbenchError: there is none, or it was written by another version.
        """
        path = Path(path)
        file = path / "sweep.yaml"
        if not file.is_file():
            raise SegbenchError(
                f"no sweep in {path}: sweep.yaml is missing",
                "a sweep directory, e.g. outputs/quickstart/sweep_<id>",
                "give the directory that `segbench train -m` printed",
            )
        try:
            read = read_yaml(file)
            if read["schema"] != SCHEMA:
                raise SegbenchError(
                    f"{file} of version {read['schema']}, written by segbench {read.get('segbench')}",
                    f"version {SCHEMA}, which segbench {__version__} reads",
                    "use the segbench that wrote it, or launch the sweep again",
                )
            sweep = cls(path, Path(read["working_directory"]), read["launcher"], read["search"])
            sweep.commands = read["commands"]
            sweep.jobs = [Job(path, **job) for job in read["jobs"]]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise SegbenchError(
                f"{file} cannot be read: {error!r}",
                "the file as segbench wrote it",
                "restore it, or launch the sweep again",
            ) from error
        return sweep

    def save(self) -> None:
        """Write sweep.yaml.

        Raises:
            SegbenchError: it cannot be written.
        """
        kept = [field.name for field in fields(Job) if field.name not in ("sweep", "on_cluster")]
        content = {
            "schema": SCHEMA,
            "segbench": __version__,
            "commands": self.commands,
            "working_directory": str(self.working_directory),
            "launcher": self.launcher,
            "search": None if self.search is None else dict(self.search),
            "jobs": [{name: value for name, value in asdict(job).items() if name in kept} for job in self.jobs],
        }
        try:
            write_whole(self.path / "sweep.yaml", yaml.safe_dump(content, sort_keys=False))
        except OSError as error:
            raise not_writable(self.path, error) from error

    def begin_search(self, search: Mapping[str, Any], base: Mapping[str, Any]) -> None:
        """Make this the sweep of a search, or check that it is the same search.

        Args:
            search: its metric, direction, space, storage and keys that go together.
            base: the configuration that all trials share.

        Raises:
            SegbenchError: it is a different search, whose trials are not comparable.
        """
        new = {**search, "base": digest_of(base)}
        if self.search is None and self.jobs:
            raise SegbenchError(
                f"{self.path} is a sweep without a search", "a separate directory", "choose another hydra.sweep.dir="
            )
        if self.search is not None and self.search.get("base") == digest_of(with_former_targets(dict(base))):
            new["base"] = self.search["base"]
        # Sweeps of version 0.1.0 say nothing of keys that go together.
        before = {"zip": [], **(self.search or {})}
        other = [key for key in new if self.search is not None and before.get(key) != new[key]]
        if self.search is not None and other:
            changes = [f"{key} {before.get(key)}, now {new[key]}" for key in other if key != "base"]
            raise SegbenchError(
                f"the search in {self.path} is different: {'; '.join(changes) or 'the configs have changed'}",
                "the same metric, space and configuration, so that trials are comparable",
                "restore them, or choose another hydra.sweep.dir=DIR",
            )
        self.search = new

    def look(self) -> None:
        """Update the queue state of jobs submitted to a cluster."""
        if any(job.slurm is not None for job in self.jobs):
            from segbench.sweep.slurm import look

            look(self.jobs)

    def labels(self) -> dict[str, str]:
        """Text that tells each job apart, by job name."""
        searched = () if self.search is None else self.search["space"]
        return {job.name: label for job, label in zip(self.jobs, differing(self.jobs, searched), strict=True)}

    def find(self, *digests: str) -> Job | None:
        """The job of a configuration, by its digest or, of a sweep of version 0.1.0, by that of its former names."""
        return next((job for job in self.jobs if job.digest in digests), None)

    def named(self, name: str) -> Job:
        """The job with this name.

        Raises:
            SegbenchError: there is none.
        """
        for job in self.jobs:
            if job.name == name:
                return job
        known = ", ".join(job.name for job in self.jobs)
        raise SegbenchError(
            f"no job {name} in {self.path}", f"one of {known}", "segbench sweep status " + str(self.path)
        )

    def __enter__(self) -> Sweep:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise not_writable(self.path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise SegbenchError(
                f"{self.path} is being launched by another process",
                "one launcher per sweep",
                f"wait for it, or choose another hydra.sweep.dir=DIR; segbench sweep status {self.path}",
            ) from error
        return self

    def __exit__(self, *raised: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

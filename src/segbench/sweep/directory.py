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

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segbench import __version__
from segbench.config.former import with_former_targets
from segbench.config.handed_over import read_record
from segbench.errors import SegbenchError, as_typed
from segbench.runs.directory import not_writable
from segbench.runtime.files import refuse_links_out, write_whole
from segbench.runtime.locks import InUse, Lock
from segbench.sweep.job import Job, check_name, differing, digest_of

SCHEMA = 1
_AS_WRITTEN = "the file as segbench wrote it"


class _OfFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _ListedJob(_OfFile):
    """A job in sweep.yaml."""

    name: str
    digest: str
    overrides: list[str]
    environment: dict[str, str] = {}
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    pruned: bool = False
    slurm: Annotated[str, Field(pattern=r"^[0-9]+(_[0-9]+)?$")] | None = None


class _Search(BaseModel):
    """A search in sweep.yaml."""

    model_config = ConfigDict(extra="allow", strict=True)

    metric: str
    direction: Literal["maximize", "minimize"]
    space: dict[str, str]
    storage: str | None = None
    zip: list[list[str]] = []


class _Listed(_OfFile):
    """sweep.yaml."""

    schema_: int = Field(alias="schema")
    segbench: str | None = None
    commands: list[Annotated[list[str], Field(min_length=2)]]
    working_directory: str
    launcher: dict[str, Any]
    search: _Search | None
    jobs: list[_ListedJob]


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
        self._lock: Lock | None = None

    @classmethod
    def open(cls, path: str | Path) -> Sweep:
        """Open an existing sweep.

        Raises:
            SegbenchError: there is none, or it was written by another version.
        """
        path = Path(path)
        file = path / "sweep.yaml"
        again = "restore it, or launch the sweep again"
        if not file.is_file():
            raise SegbenchError(
                f"no sweep in {path}: sweep.yaml is missing",
                "a sweep directory, e.g. outputs/quickstart/sweep_<id>",
                "give the directory that `segbench train -m` printed",
            )
        read = read_record(file)
        try:
            if read["schema"] != SCHEMA:
                raise SegbenchError(
                    f"{file} of version {read['schema']}, written by segbench {read.get('segbench')}",
                    f"version {SCHEMA}, which segbench {__version__} reads",
                    "use the segbench that wrote it, or launch the sweep again",
                )
            listed = _Listed.model_validate(read)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(map(str, fault["loc"]))
            raise SegbenchError(f"{file} cannot be read: {where}: {fault['msg']}", _AS_WRITTEN, again) from error
        except (KeyError, TypeError) as error:
            raise SegbenchError(f"{file} cannot be read: {error!r}", _AS_WRITTEN, again) from error
        sweep = cls(path, Path(listed.working_directory), listed.launcher, read["search"])
        sweep.commands = listed.commands
        for job in listed.jobs:
            check_name(job.name, str(file))
            sweep.jobs.append(
                Job(path, **job.model_dump(exclude={"environment"}), recorded_environment=job.environment)
            )
        return sweep

    def save(self) -> None:
        """Write sweep.yaml.

        Raises:
            SegbenchError: it cannot be written.
        """
        kept = [
            field.name for field in fields(Job) if field.name not in ("sweep", "on_cluster", "recorded_environment")
        ]
        content = {
            "schema": SCHEMA,
            "segbench": __version__,
            "commands": self.commands,
            "working_directory": str(self.working_directory),
            "launcher": self.launcher,
            "search": None if self.search is None else dict(self.search),
            "jobs": [
                {name: value for name, value in asdict(job).items() if name in kept}
                | {"environment": job.environment or job.recorded_environment}
                for job in self.jobs
            ],
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
            refuse_links_out(self.path, deep=False)
            self._lock = Lock.take(self.path / ".lock")
        except OSError as error:
            raise not_writable(self.path, error) from error
        except InUse as held:
            raise SegbenchError(
                f"{self.path} is being launched by {held.by}",
                "one launcher per sweep",
                "wait for it, or choose another hydra.sweep.dir=DIR; "
                f"segbench sweep status {as_typed(self.path)}{held.or_else}",
            ) from held
        return self

    def __exit__(self, *raised: object) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

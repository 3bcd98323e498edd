"""Runs of a W&B project, read through its public API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from segbench.errors import SegbenchError
from segbench.tracking.access import prepare

TIMEOUT = 15
"""Seconds to wait for a server that does not answer."""
_FILTERS = {"group": "group", "tag": "tags", "state": "state"}


@dataclass(frozen=True)
class TrackedRun:
    """A run on the server of a tracker.

    Attributes:
        id: of the run; its run directory has it in wandb_id.txt or mlflow_id.txt.
        address: `wandb:ENTITY/PROJECT/RUN` or `mlflow:EXPERIMENT/RUN`.
        name: the displayed name.
        state: finished, running, crashed, failed or killed.
        config: nested, as it was logged.
        summary: the last value of everything logged.
        created: ISO 8601.
        group: of the run; empty if it has none.
    """

    id: str
    address: str
    name: str
    state: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    created: str
    group: str


@dataclass(frozen=True)
class Address:
    """What a W&B source names.

    Attributes:
        entity: a user or a team.
        project: of the entity.
        run: an id, or None for all runs.
        filters: in the server's terms.
    """

    entity: str
    project: str
    run: str | None
    filters: Mapping[str, Any]


def parse(source: str) -> Address:
    """Read `ENTITY/PROJECT[/RUN]`, or `ENTITY/PROJECT?group=NAME&tag=NAME&state=finished`.

    Raises:
        SegbenchError: it is neither.
    """
    path, _, query = source.partition("?")
    parts = path.strip("/").split("/")
    asked = parse_qs(query, keep_blank_values=True)
    unknown = sorted(set(asked) - set(_FILTERS))
    if len(parts) not in (2, 3) or not all(parts) or unknown or (len(parts) == 3 and query):
        raise SegbenchError(
            f"wandb:{source}" + (f" with {', '.join(unknown)}=" if unknown else ""),
            "wandb:ENTITY/PROJECT, wandb:ENTITY/PROJECT/RUN or wandb:ENTITY/PROJECT?group=NAME (tag=, state=)",
            "copy entity and project from the address of the project's page",
        )
    filters = {_FILTERS[key]: values[0] for key, values in asked.items()}
    return Address(parts[0], parts[1], parts[2] if len(parts) == 3 else None, filters)


def read_project(source: str, base_url: str | None = None) -> list[TrackedRun]:
    """Read runs.

    Args:
        source: see `parse`.
        base_url: of the server; None for the configured one (WANDB_BASE_URL).

    Returns:
        the runs from the oldest to the newest.

    Raises:
        SegbenchError: no network, no key, no such project or run, or no run in it.
    """
    prepare()
    import wandb

    address = parse(source)
    project = f"{address.entity}/{address.project}"
    with _told(source):
        api = wandb.Api(overrides={"base_url": base_url} if base_url else None, timeout=TIMEOUT)
        if address.run is not None:
            found = [api.run(f"{project}/{address.run}")]
        else:
            found = list(api.runs(project, filters=dict(address.filters), per_page=200, lazy=False))
        runs = [_read(run, project) for run in found]
    if not runs:
        raise SegbenchError(f"no run in wandb:{source}", "a project with runs", "correct the address or its filters")
    return runs


def _read(run: Any, project: str) -> TrackedRun:
    return TrackedRun(
        id=run.id,
        address=f"wandb:{project}/{run.id}",
        name=run.name,
        state=run.state,
        config=dict(run.config),
        summary=dict(run.summary_metrics),
        created=str(run.created_at),
        group=run.group or "",
    )


@contextmanager
def _told(source: str) -> Iterator[None]:
    import wandb

    try:
        yield
    except wandb.errors.UsageError as error:
        raise SegbenchError(
            f"wandb:{source} cannot be read: {_line(error)}",
            "a key for the W&B server",
            "log in (wandb login), set WANDB_API_KEY, or compare the run directories, which need no server",
        ) from error
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise SegbenchError(
            f"wandb:{source} cannot be read: {_line(error)}",
            "a W&B server that answers, and a project that the key can read",
            "check the network and the address, or compare the run directories, which need no server",
        ) from error


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

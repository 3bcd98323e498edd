"""A report or a comparison in a W&B project: its tables, and the file as an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError
from segbench.tracking.access import INIT_S, access, base_url, prepare, silence
from segbench.tracking.tracker import Item
from segbench.tracking.wandb_run import use


def send(
    project: str,
    kind: str,
    name: str,
    file: Path,
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    folder: Path | None = None,
    used: Sequence[Item] = (),
) -> str:
    """Send a file and tables to a project, as a separate W&B run.

    Without a key the run is kept on this machine, as training runs are; `wandb sync` sends it later.

    Args:
        project: `PROJECT` or `ENTITY/PROJECT`.
        kind: `report` or `comparison`; the artifact's type and the run's.
        name: of the artifact.
        file: its content.
        tables: rows by name; the run shows them, and they can be joined there.
        folder: where an offline run is kept, in `wandb/`; None: the file's folder.
        used: what it is made of; W&B draws the way from the runs that made it to this one.

    Returns:
        a sentence that says where it was sent.

    Raises:
        SegbenchError: an unusable project, or a server that cannot be reached.
    """
    entity, _, of_entity = project.removeprefix("wandb:").rpartition("/")
    if not of_entity or "/" in entity:
        raise SegbenchError(f"wandb={project}", "PROJECT or ENTITY/PROJECT", "correct wandb=")
    prepare()
    asked = access()
    if asked.mode == "disabled":
        return f"wandb: disabled ({asked.why}); nothing is sent"
    if asked.mode != "offline" and (reason := silence()) is not None:
        raise SegbenchError(
            f"W&B cannot be reached: {base_url()}: {reason}",
            "a server that answers",
            "try again later, or set WANDB_MODE=offline and send it with `wandb sync`",
        )
    import wandb

    settings = wandb.Settings(init_timeout=INIT_S, silent=True)
    offline = asked.mode == "offline"
    try:
        run = wandb.init(
            project=of_entity,
            entity=entity or None,
            job_type=kind,
            name=name,
            dir=str(folder or file.parent),
            mode="offline" if offline else "online",
            settings=settings,
            reinit="create_new",
        )
    except wandb.errors.Error as error:
        raise SegbenchError(
            f"W&B cannot be reached: {str(error).splitlines()[0]}",
            "a server that answers",
            "try again later, or set WANDB_MODE=offline and send it with `wandb sync`",
        ) from error
    try:
        for title, rows in (tables or {}).items():
            if rows:
                columns = list(dict.fromkeys(key for row in rows for key in row))
                data = [[_cell(row.get(column)) for column in columns] for row in rows]
                run.log({f"{kind}/{title}": wandb.Table(columns=columns, data=data, allow_mixed_types=True)})
        for item in used:
            use(run, item)
        artifact = wandb.Artifact("".join(c if c.isalnum() or c in "-_." else "-" for c in name), type=kind)
        artifact.add_file(str(file))
        run.log_artifact(artifact)
        where = f"wandb: kept in {Path(run.dir).parent}; send it with: wandb sync {Path(run.dir).parent}"
        return where if offline else f"wandb: {run.url}"
    finally:
        run.finish()
        # A separate process of W&B writes an offline run's file, and finish() does not wait for it.
        wandb.teardown()


def _cell(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool)) or value is None else str(value)

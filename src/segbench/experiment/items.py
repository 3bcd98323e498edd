"""What a run made and used, for trackers: the data set, the reported checkpoint, predictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.places import DATA
from segbench.runs.directory import Run
from segbench.tracking.tracker import Item

if TYPE_CHECKING:
    from segbench.config.record import Config
    from segbench.data.raw import DataSet


def data_item(config: Config, dataset: DataSet, digests: Mapping[str, str], counts: Mapping[str, int]) -> Item:
    """The data set by its facts; nothing of it is sent.

    Args:
        config: of the run.
        dataset: the data.
        digests: of some images of each split.
        counts: images by split.
    """
    spec = dataset.spec
    digest = hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()
    metadata = {
        "name": spec.name,
        "digest": digest,
        "images": dict(counts),
        "classes": {name: list(head.class_names) for name, head in spec.heads.items()},
        "modalities": {name: modality.channels for name, modality in spec.modalities.items()},
        "protocol": spec.protocol,
        "licence": spec.licence,
    }
    places = [str(value) for key in DATA if (value := config.flat.get(key))]
    return Item(
        f"data-{spec.name}", "dataset", metadata, references=[Path(place).absolute().as_uri() for place in places]
    )


def model_item(run: Run, config: Config, checkpoint: Path, scores: Mapping[str, float]) -> Item:
    """A checkpoint with the scores that are reported of it.

    Args:
        run: that wrote it.
        config: of the run.
        checkpoint: the file.
        scores: by key.
    """
    network = {"network": config.model.name, "experiment": config.name, "seed": config.seed}
    metadata: dict[str, Any] = network | {"checkpoint": checkpoint.stem, "scores": dict(scores)}
    return Item(
        f"model-{_identity(run)}",
        "model",
        metadata,
        files={checkpoint.name: checkpoint},
        references=[checkpoint.absolute().as_uri()],
        aliases=[checkpoint.stem],
    )


def scores_item(run: Run) -> Item:
    """The scores of a finished run, by which a comparison or a report is tied to it."""
    results = run.results()
    facts = {"scores": results["metrics"], "definitions": results["protocol"].get("versions") or {}}
    return Item(f"scores-{_identity(run)}", "scores", facts)


def tracked_scores(paths: Iterable[Path]) -> list[Item]:
    """The scores of those runs that W&B knows."""
    return [scores_item(Run(path)) for path in paths if (path / "wandb_id.txt").is_file()]


def predictions_item(run: Run, folder: Path, split: str) -> Item | None:
    """Predicted images; None where there are none."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if not files:
        return None
    metadata = {"split": split, "files": len(files)}
    references = [folder.absolute().as_uri()]
    return Item(f"predictions-{_identity(run)}", "predictions", metadata, files=files, references=references)


def _identity(run: Run) -> str:
    path = run.path / "wandb_id.txt"
    return path.read_text().strip() if path.is_file() else run.path.name

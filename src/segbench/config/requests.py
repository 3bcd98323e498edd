"""Requests to the commands on a trained run, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from segbench.config.record import (
    Components,
    Config,
    ContoursOrNone,
    Count,
    CountOrNone,
    Recorded,
    Scale,
    Scales,
    Seconds,
    Section,
    Trainer,
    Tta,
    Workers,
)
from segbench.errors import SegbenchError

Which = Literal["best", "last"]
Threads = Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]


class OtherData(Section):
    """Where a run's data lie now, and how they are loaded; None keeps what the run recorded.

    Further arguments of its data set are given with a plus: `+data.test=LIST` scores other images.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    root: str | None = None
    images: str | None = None
    masks: str | None = None
    channels: Literal["grey", "rgb"] | None = None
    axes: str | None = None
    exif: Literal["ignore", "turn"] | None = None
    nodata: float | None = None
    eval_batch_size: Count | None = None
    num_workers: Workers | None = None

    def changes(self) -> dict[str, Any]:
        """The settings that are given, by dotted key."""
        return {f"data.{name}": value for name, value in self.model_dump(exclude_none=True).items()}


def averaging(config: Config, tta: str | None, scales: list[float] | None) -> dict[str, Any]:
    """What replaces a run's own `tta` and `tta_scales`; None keeps them, where they still belong together.

    Raises:
        SegbenchError: scales of anything but `multiscale`.
    """
    if scales is not None and (used := config.tta if tta is None else tta) != "multiscale":
        raise SegbenchError(
            f"tta={used}{' of the run' if tta is None else ''} and tta_scales={scales}",
            "null unless tta=multiscale",
            "add tta=multiscale, or leave tta_scales out",
        )
    changes: dict[str, Any] = {} if tta is None else {"tta": tta}
    if scales is not None or tta not in (None, "multiscale"):
        changes["tta_scales"] = scales
    return changes


class OfARun(Recorded):
    """What an evaluation and a prediction may change of a run; None keeps what the run recorded.

    Attributes:
        trust: exact names of classes that the run's config may name beside those that are trusted anyway.
        ensemble: further runs, whose probabilities are averaged with the run's.
        match_histogram: images whose grey values others get; see `prediction.histogram`.
    """

    trust: str | list[str] | None = None
    checkpoint: Which | None = None
    ensemble: str | list[str] | None = None
    tile: Count | None = None
    tta: Tta | None = None
    tta_scales: Scales | None = None
    input_scale: Scale | None = None
    calibration: Literal["none", "cubic"] | None = None
    median: CountOrNone | None = None
    match_histogram: str | None = None
    contours: ContoursOrNone | None = None
    threads: Threads | None = None
    data: OtherData = OtherData()
    trainer: Trainer

    def applied_to(self, config: Config) -> Config:
        """A run's configuration with what is given here."""
        own: dict[str, Any] = averaging(config, self.tta, self.tta_scales)
        own |= {key: value for key in ("tile", "threads") if (value := getattr(self, key)) is not None}
        if self.input_scale is not None:
            own["input_scale"] = None if self.input_scale == 1 else self.input_scale
        if self.calibration is not None:
            own["calibration"] = None if self.calibration == "none" else self.calibration
        if self.median is not None:
            own["median"] = self.median or None
        if self.contours is not None:
            own["contours"] = self.contours or None
        trainer = self.tree["trainer"]
        if self.trainer.precision == "auto":
            # Scores depend on the precision: what was trained in bf16 is scored in bf16.
            trainer["precision"] = config.trainer.precision
        if self.trainer.allow_tf32 == "auto":
            trainer["allow_tf32"] = config.trainer.allow_tf32
        if self.trainer.benchmark == "auto":
            # Whole images may have many sizes, whatever the training tiles.
            trainer["benchmark"] = own.get("tile", config.tile) is not None and not self.trainer.deterministic
        return config.replace({**own, **self.data.changes(), "trainer": trainer}, self.command)


class OtherRuntime(Section):
    """How an evaluation's processes wait; None keeps what the run recorded."""

    timeout_s: Seconds | None = None


class EvaluateRequest(OfARun):
    """`segbench evaluate`: a run, or predictions beside labels."""

    command: ClassVar[str] = "segbench evaluate"

    name: str
    run: str | None = None
    predictions: str | None = None
    labels: str | None = None
    split: str = "test"
    decoding: dict[str, Any] = Field(default_factory=dict)
    runtime: OtherRuntime = OtherRuntime()
    logger: Components = Field(default_factory=dict)

    def applied_to(self, config: Config) -> Config:
        """As for any request, and how its processes wait and objects are decoded, but for lists.

        Raises:
            SegbenchError: another decoding, and no metric of the run that decodes objects.
        """
        changes: dict[str, Any] = (
            {} if self.runtime.timeout_s is None else {"runtime.timeout_s": self.runtime.timeout_s}
        )
        if given := {key: value for key, value in self.decoding.items() if value is not None}:
            if not (users := users_of_decoding(config)):
                first = next(iter(given))
                raise SegbenchError(
                    f"decoding.{first}={given[first]}, and no metric of the run that uses its decoding",
                    "a run with metrics=cell_tracking or metrics=objects",
                    f"leave decoding.{first} out",
                )
            places = ("decoding", *(f"metrics.{name}.decoding" for name in users))
            single = {key: value for key, value in given.items() if not isinstance(value, list)}
            changes |= {f"{place}.{key}": value for place in places for key, value in single.items()}
        return super().applied_to(config).replace(changes, self.command)


def users_of_decoding(config: Config) -> list[str]:
    """The names of the metrics that decode objects as a run's predictions do."""
    own = config.tree.get("decoding")
    metrics = {name: metric for name, metric in config.metrics.items() if metric is not None}
    return [name for name, metric in metrics.items() if own is not None and metric.arguments.get("decoding") == own]


class Voc(Section):
    """How the archive for the PASCAL VOC server is laid out."""

    year: int
    competition: str


class PredictRequest(OfARun):
    """`segbench predict`: files, or a split of the run's own data."""

    command: ClassVar[str] = "segbench predict"

    run: str
    output: str
    input: str | dict[str, str] | None = None
    split: str | None = None
    ids: str | None = None
    format: str | list[str] | None = None
    store: Literal["tiff", "zarr"] | None = None
    values: Literal["own", "index"] | None = None
    opacity: Annotated[float, Field(ge=0, le=1)] = 0.4
    overwrite: bool = False
    batch_size: Count = 1
    overlap: Annotated[float, Field(gt=0, le=0.5)] | None = None
    decoding: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    voc: Voc


class ExportRequest(Recorded):
    """`segbench export`: a run's network as one file."""

    command: ClassVar[str] = "segbench export"

    trust: str | list[str] | None = None
    run: str
    format: str
    output: str | None = None
    checkpoint: Which | None = None
    ensemble: str | list[str] | None = None
    size: Any = None
    """[H, W]; `segbench.export.exporting` checks it."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-4


RECORDS: Mapping[str, type[Recorded]] = {
    "train": Config,
    "evaluate": EvaluateRequest,
    "predict": PredictRequest,
    "export": ExportRequest,
}
"""What the config of each command becomes."""

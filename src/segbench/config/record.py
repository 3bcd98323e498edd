"""The resolved configuration of a run as a frozen record with a typed section for each axis.

It is made once at an entry point, from what Hydra composed or from what a run recorded. Builders take their own
section; whatever compares configurations reads `Config.flat`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from segbench.config.flat import changed, flatten
from segbench.config.handed_over import refuse_interpolations
from segbench.config.misfits import misfit
from segbench.config.paper import packaged_facts

Auto = Literal["auto"]
"""What the machine or the data decide: `runtime.hardware` and `experiment.settled_by_data` replace it."""
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Tta = Literal["none", "rot4", "d4", "multiscale"]
Contours = Annotated[float, Field(ge=0.5, le=16)]
ContoursOrNone = Contours | Literal[0]
Scale = Annotated[float, Field(ge=0.05, le=16)]
Scales = Annotated[list[Scale], Field(min_length=1, max_length=64)]
"""Factors of an image's sides."""
Workers = Annotated[int, Field(ge=0, le=1024)] | Auto


class Section(BaseModel):
    """A part of the configuration; frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Component(Section):
    """A class or function and the arguments that it is called with.

    Attributes:
        target: its dotted name, `_target_` in a config.
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    target: str = Field(alias="_target_")

    apart: ClassVar[frozenset[str]] = frozenset()
    """Keys beside the arguments that the target does not take."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What the target is called with, as plain containers; a copy."""
        given = copy.deepcopy(self.model_dump(by_alias=True, exclude_unset=True))
        return {key: value for key, value in given.items() if key != "_target_" and key not in self.apart}

    @property
    def name(self) -> str:
        """The last part of the target."""
        return self.target.rpartition(".")[2]


AUTO_TILE = 256
"""The side in pixels of tiles that the data choose, unless the images are smaller."""
ByClass = dict[str, Annotated[float, Field(ge=0)]]
"""A number for each class, by its name."""
LOADER_KEYS = ("batch_size", "tile", "surround", "repeats", "balance", "draw", "eval_batch_size", "num_workers")


Seconds = Annotated[float, Field(gt=0, le=10**7)]


class Data(Component):
    """A data set, and how it is loaded."""

    apart: ClassVar[frozenset[str]] = frozenset(LOADER_KEYS)

    batch_size: Count | Auto = 1
    tile: Count | Auto | None = None
    surround: CountOrNone = 0
    repeats: Count = 1
    balance: ByClass | Auto | None = None
    draw: Literal["pixels"] | None = None
    eval_batch_size: Count = 1
    num_workers: Workers = 0

    @property
    def loading(self) -> dict[str, Any]:
        """The arguments of `segbench.data.datamodule.SegmentationData`, where nothing is `auto` any more."""
        return {name: getattr(self, name) for name in LOADER_KEYS}


class Augment(Component):
    """An augmentation, and the name of the packaged one that the data chose: `pick`, None where none was chosen."""

    apart: ClassVar[frozenset[str]] = frozenset({"pick"})

    pick: str | None = None


class Loss(Component):
    """A loss, the map of pixel weights that it asks for, and its class weights by the names of the classes."""

    apart: ClassVar[frozenset[str]] = frozenset({"weight_map", "class_weights"})

    weight_map: Component | None = None
    class_weights: ByClass | Auto | None = None


class Scheduler(Component):
    """A learning-rate schedule, and when it steps: every `frequency` steps or epochs, with a monitor by validations."""

    apart: ClassVar[frozenset[str]] = frozenset({"interval", "frequency", "monitor"})

    interval: Literal["step", "epoch"] = "step"
    frequency: Count = 1
    monitor: str | None = None


class Trainer(Component):
    """The arguments of `lightning.Trainer`; those that are not named here are passed on.

    Attributes:
        allow_tf32: whether a GPU may round the factors of float32 products to TF32's 10 bits; None, as in runs of older
            versions: torch's own choice, which is to round in convolutions.
    """

    apart: ClassVar[frozenset[str]] = frozenset({"allow_tf32"})

    accelerator: str = "auto"
    devices: Auto | int | list[int] | str = 1
    num_nodes: Count = 1
    strategy: str | dict[str, Any] = "auto"
    precision: str | int = "auto"
    max_steps: Annotated[int, Field(ge=-1)] = -1
    max_epochs: Annotated[int, Field(ge=-1)] | None = None
    max_time: str | dict[str, int] | None = None
    gradient_clip_val: Annotated[float, Field(ge=0)] | None = None
    accumulate_grad_batches: Count = 1
    val_check_interval: Count | Annotated[float, Field(gt=0, le=1)] | str | dict[str, int] | None = None
    check_val_every_n_epoch: Count | None = 1
    log_every_n_steps: Count = 10
    num_sanity_val_steps: Annotated[int, Field(ge=-1)] = 0
    sync_batchnorm: bool | Auto = False
    deterministic: bool | Literal["warn"] = False
    benchmark: bool | Auto | None = None
    allow_tf32: bool | Auto | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether the accelerator, settled, is a GPU."""
        return self.accelerator in ("gpu", "cuda")

    @property
    def processes_here(self) -> int:
        """The number of processes on this machine; 1 if the machine decides."""
        if isinstance(self.devices, list):
            return len(self.devices)
        return int(self.devices) if str(self.devices).isdecimal() else 1

    @property
    def processes(self) -> int:
        """The number of processes on all machines."""
        return self.processes_here * self.num_nodes


class Task(Section):
    """Settings of `segbench.training.task.SegmentationTask`."""

    channels_last: bool | Auto = "auto"
    compile: bool = False
    train_only: list[str] | str | None = None


class Runtime(Section):
    """The processes of a run.

    Attributes:
        timeout_s: how long one waits for another; a run ends if it is not answered.
    """

    timeout_s: Seconds = 1800.0


class InitialWeights(Section):
    """Published weights to start from."""

    name: str | None = None
    path: str | None = None
    leave: list[str] = []


class Paper(Section):
    """The row of a paper that a run is compared with; of a packaged row it has the packaged facts.

    Attributes:
        row: its name in the tables of published numbers.
        method: its line in that table.
        source: where it is printed.
        metrics: the printed scores.
        experiment: the packaged experiment that is the row itself.
        weights: the published initial weights.
        deviations: of the packaged experiment itself from the paper, those that no setting shows.
        not_comparable: why the scores of the experiment are of other images than the paper's.
        symmetries: how many transformed copies of an image the paper averages over; None: it does not say.
        looked_at: folds whose test images were looked at while the experiment was made, with the reason; `null` is the
            default split.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    row: str | None = None
    method: str | None = None
    source: str | None = None
    metrics: dict[str, float] = {}
    experiment: str | None = None
    weights: str | None = None
    deviations: list[str] = []
    not_comparable: str | None = None
    symmetries: int | None = None
    looked_at: dict[str, str | None] = {}


def _only_multiscale(scales: list[float] | None, info: ValidationInfo) -> list[float] | None:
    if scales is not None and info.data.get("tta", "multiscale") != "multiscale":
        raise PydanticCustomError("tta_scales", "null unless tta=multiscale")
    return scales


def _by_head(value: Any) -> Any:
    # One loss for all heads, or one each.
    return {"": value} if isinstance(value, Mapping) and "_target_" in value else value


Losses = Annotated[dict[str, Loss], BeforeValidator(_by_head)]
Components = dict[str, Component | None]


class Recorded(Section):
    """What is resolved once, written to config.yaml and read back. Further keys at the top are the user's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    command: ClassVar[str] = "segbench train"
    """What is composed from such a configuration."""

    _tree: dict[str, Any] = PrivateAttr()

    @classmethod
    def of(cls, tree: Mapping[str, Any], source: str = "the configuration", command: str | None = None) -> Self:
        """The record of a resolved configuration.

        Args:
            tree: nested plain containers, no interpolation left.
            source: where it is from, for errors.
            command: that was given; None: the one that such a configuration is composed for.

        Raises:
            SegbenchError: an interpolation, a key that is missing or unknown, or a value of the wrong type or out of
                range.
        """
        text = json.dumps(refuse_interpolations(tree, source))
        try:
            # JSON's rules: an integer is a number, a list is a tuple, but a word is never a number.
            config = cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise misfit(error, tree, source, cls, command or cls.command) from None
        config._tree = copy.deepcopy(dict(tree))
        return config

    @property
    def tree(self) -> dict[str, Any]:
        """Nested plain containers, as they are written to config.yaml; a copy."""
        return copy.deepcopy(self._tree)

    @cached_property
    def flat(self) -> Mapping[str, Any]:
        """Every value by its dotted key."""
        return flatten(self._tree)

    def replace(self, changes: Mapping[str, Any], command: str | None = None) -> Self:
        """The configuration with other values at some dotted keys, which `command` gave, checked again."""
        return type(self).of(changed(self._tree, changes), command=command)


class Config(Recorded):
    """The whole configuration of a training run.

    Attributes:
        name: the experiment's.
        seed: decides weights, order and augmentation.
        threads: CPU threads of the process.
        tile: output side in pixels of an inference tile; None takes the whole image.
        tta: symmetries, or scales, that test predictions are averaged over.
        tta_scales: of `multiscale`; None: 0.5 to 1.75 by quarters.
        input_scale: factor that images of a test or a prediction are resized by before the network sees them; None: 1.
        calibration: how the probabilities of the test are calibrated on training images, of two classes; None: not.
        median: radius in pixels of the median filter that they then go through; None: none.
        contours: sigma in pixels of the closed contours that are then drawn in their place; None: none.
        init_from: a run to start from, or one for each modality.
        stages: experiments that run before this one, in order or by modality.
        optimized_metric: the score that the jobs of a sweep are compared by.
        weights: published weights to start from.
        paper: the row that the run is compared with.
        debug: what a run that looks for a fault is for; None for any other.
        loss: by head; "" where one serves all.
    """

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threads: Annotated[int, Field(ge=1, le=1024)] | Auto
    tile: Count | None
    tta: Tta
    tta_scales: Annotated[Scales | None, AfterValidator(_only_multiscale)] = None
    input_scale: Scale | None = None
    calibration: Literal["cubic"] | None = None
    median: Count | None = None
    contours: Contours | None = None
    init_from: str | dict[str, str] | None = None
    stages: list[str] | dict[str, str] | None = None
    optimized_metric: str | None = None
    debug: str | None = None
    weights: InitialWeights | None = None
    paper: Annotated[Paper | None, BeforeValidator(packaged_facts)] = None
    task: Task
    runtime: Runtime = Runtime()
    data: Data
    augment: Augment
    model: Component
    loss: Losses
    optimizer: Component
    scheduler: Scheduler
    decoding: Component | None = None
    trainer: Trainer
    callbacks: Components
    logger: Components = {}
    metrics: Components

    @property
    def monitor(self) -> str | None:
        """The validation score that chooses best.ckpt; None where the last checkpoint is reported."""
        checkpoint = self.callbacks.get("checkpoint")
        return None if checkpoint is None else checkpoint.arguments.get("monitor")

    def loss_of(self, head: str) -> Loss:
        """The loss of a head."""
        return self.loss[head] if head in self.loss else self.loss[""]

"""The contracts between the parts: what a data set declares, a sample holds and a model guarantees.

Shape letters, here and everywhere: B batch, C channels, K classes, H height, W width, N images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VOID = 255
"""The label of pixels that do not count, in any loss or metric."""


@dataclass(frozen=True)
class Reading:
    """How files of images are read where they leave a choice; one for training, check, prediction and Python.

    Attributes:
        axes: letters of an array's axes where a file does not name them, such as `CYX`; Y and X once, C at most once,
            any other letter enumerates images. None: pages are images.
        exif: `ignore` reads the pixels as they are stored, `turn` as a viewer shows them.
        nodata: a value that means no data, beside NaN and what a file itself declares.
        channels: `grey` and `rgb` convert grey, grey with alpha, RGB and RGBA; None changes nothing.
    """

    axes: str | None = None
    exif: str = "ignore"
    nodata: float | None = None
    channels: str | None = None


@dataclass(frozen=True)
class MaskCoding:
    """How masks of a labelling are written in the user's own files.

    Attributes:
        kind: `ids`, `palette` (indices of a palette) or `colours`.
        values: of each class, a colour as 0xRRGGBB; of several values of a class the first.
        colours: of each class in a palette, 0xRRGGBB; else empty.
        void: the value of void pixels, also of those without data; a value of no class.
    """

    kind: str
    values: tuple[int, ...]
    colours: tuple[int, ...]
    void: int


@dataclass(frozen=True)
class ModalitySpec:
    """One kind of input: its channels and how raw values become network inputs, `(raw - mean) / std`.

    Attributes:
        channels: C of the modality.
        mean: C values in `unit`, subtracted.
        std: C values in `unit`, divided by.
        unit: what a raw value measures, e.g. `grey level, 0 to 255` or `ln(millimetres)`.
        reading: how its files are read.
    """

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unit: str
    reading: Reading = Reading()

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise SegbenchError(
                    f"{name} has {len(values)} values for {self.channels} channels",
                    "one value per channel",
                    f"give ModalitySpec.{name} {self.channels} values",
                )


CORE = "core"
"""The name of the class of the middles of objects, where a data set has it; it is the last one."""


@dataclass(frozen=True)
class HeadSpec:
    """One labelling of the pixels: its classes and their colours.

    Attributes:
        class_names: K names; the index is the label.
        palette: K colours, RGB 0 to 255.
        ignore_index: the label of void pixels.
        excluded: classes left out of means (in SIFT Flow, those that the test set lacks).
        coding: how the user's own masks write the classes; None: by their indices.
    """

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int = VOID
    excluded: tuple[int, ...] = ()
    coding: MaskCoding | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def core_class(self) -> int | None:
        """The class of the middles of objects: the last one, if it is named `core`."""
        return self.num_classes - 1 if self.class_names[-1] == CORE else None


@dataclass(frozen=True)
class DatasetSpec:
    """What a data set declares; `build` sizes the model from it, so no config repeats a class count.

    Attributes:
        name: as in `data=NAME`.
        modalities: the inputs by name (`em`, `rgb`, `hha`, `depth` ...).
        heads: the labellings by name (`semantic`, `geometric` ...).
        citation: whom to cite.
        licence: terms of use.
        protocol: the split as text, for a run's provenance.
        dependence: what the images of a split are of one of, such as `frames of one sequence`; empty if they are
            independent. A comparison of runs over few independent images must not be too sure.
    """

    name: str
    modalities: Mapping[str, ModalitySpec]
    heads: Mapping[str, HeadSpec]
    citation: str
    licence: str
    protocol: str
    dependence: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for a run directory."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DatasetSpec:
        """The inverse of `to_dict`, also from JSON, which has no tuples."""

        def tuples(value: Any) -> Any:
            return tuple(map(tuples, value)) if isinstance(value, (list, tuple)) else value

        def made(key: str, value: Any) -> Any:
            inner = {"reading": Reading, "coding": MaskCoding}.get(key)
            return (
                tuples(value) if inner is None or value is None else inner(**{k: tuples(v) for k, v in value.items()})
            )

        kinds = {"modalities": ModalitySpec, "heads": HeadSpec}
        nested = {
            name: {key: kind(**{k: made(k, v) for k, v in value.items()}) for key, value in plain[name].items()}
            for name, kind in kinds.items()
        }
        return cls(**(dict(plain) | nested))


@dataclass(frozen=True)
class Sample:
    """One image with its labels.

    Attributes:
        images: CHW by modality: uint8 as they are, and float32, which are normalised.
        targets: HW uint8 by head; empty without labels.
        instances: HW int32 object ids, 0 = none.
        references: further object ids by name, for evaluation.
        weight: HW float32 pixel weights of the loss.
        id: the image's name in its data set.
        index: its position in the split; -1 marks padding, which metrics ignore.
    """

    images: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    id: str
    index: int
    instances: Tensor | None = None
    weight: Tensor | None = None
    references: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass
class Batch:
    """Samples stacked along a leading B; smaller ones padded to the largest: images with 0, labels with void.

    A loader gives images and labels in the bytes that they are stored in, a sixth of what a network and its loss take;
    `normalised` turns them into that on the device.

    Not frozen, since Lightning fills a copy with tensors of another type: under `trainer.precision=bf16-true` and the
    like those that are float32 here are of that type.

    Attributes:
        images: BCHW float32 by modality; uint8 before `normalised`, where they are stored so.
        targets: BHW int64 by head; uint8 before `normalised`.
        ids: B names.
        indices: B positions in the split, -1 for padding.
        sizes: B pairs (H, W) before padding.
        instances: BHW int32 or None.
        weight: BHW float32 pixel weights, or None.
        references: BHW int32 by name.
    """

    images: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    ids: tuple[str, ...]
    indices: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    instances: Tensor | None = None
    weight: Tensor | None = None
    references: Mapping[str, Tensor] = field(default_factory=dict)

    def _map(self, move: Any) -> Batch:
        changed: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Mapping):
                changed[entry.name] = {key: move(tensor) for key, tensor in value.items()}
            elif entry.name in ("instances", "weight") and value is not None:
                changed[entry.name] = move(value)
        return replace(self, **changed)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """The batch on `device`; called by Lightning."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def normalised(self, scales: Mapping[str, tuple[Tensor, Tensor | None]]) -> Batch:
        """The batch as a network takes it: the same numbers as `segbench.data.tiles.normalise` gives.

        Args:
            scales: mean and std by modality, each C11 float32 on the images' device; None for a std of 1.
        """
        images = {}
        for name, image in self.images.items():
            if not image.is_floating_point():
                image = _normalised(image, *scales[name])
                for image_CHW, (height, width) in zip(image, self.sizes, strict=True):
                    if image_CHW.shape[1:] != (height, width):
                        image_CHW[:, height:] = 0
                        image_CHW[:, :, width:] = 0
            images[name] = image
        return replace(self, images=images, targets={head: label.long() for head, label in self.targets.items()})

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; called by the data loader."""
        return self._map(lambda tensor: tensor.pin_memory())


def _normalised(image_BCHW: Tensor, mean_C11: Tensor, std_C11: Tensor | None) -> Tensor:
    pixels_BHWC = image_BCHW.permute(0, 2, 3, 1)
    if image_BCHW.is_contiguous() or not pixels_BHWC.is_contiguous():
        scaled_BCHW = image_BCHW.float().sub_(mean_C11)
        return scaled_BCHW if std_C11 is None else scaled_BCHW.div_(std_C11)
    # By rows of all channels: a number for each pixel's channel takes a CPU three times as long.
    width = pixels_BHWC.shape[2]
    scaled_BHN = pixels_BHWC.float().flatten(2).sub_(mean_C11.flatten().repeat(width))
    if std_C11 is not None:
        scaled_BHN.div_(std_C11.flatten().repeat(width))
    return scaled_BHN.view(pixels_BHWC.shape).permute(0, 3, 1, 2)


def collate(samples: Sequence[Sample], ignore_index: Mapping[str, int] | None = None) -> Batch:
    """Stack samples into a `Batch`, padded at the bottom and on the right.

    Args:
        samples: at least one, all with the same modalities and heads.
        ignore_index: the void label by head, 255 for others.
    """
    import torch

    shapes = [next(iter(sample.images.values())).shape for sample in samples]
    sizes = tuple((shape[-2], shape[-1]) for shape in shapes)
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)

    def stack(tensors: Sequence[Tensor], value: float) -> Tensor:
        if len(tensors) == 1:
            return tensors[0][None]
        # Keeps the samples' memory order: torch.stack and pad would turn HWC into CHW.
        first = tensors[0][None]
        by_pixel = first.ndim == 4 and not first.is_contiguous()
        order = torch.channels_last if by_pixel else torch.contiguous_format
        shape = (len(tensors), *first.shape[1:-2], height, width)
        batch = torch.empty(shape, dtype=first.dtype, memory_format=order)
        if any(tensor.shape[-2:] != (height, width) for tensor in tensors):
            batch.fill_(value)
        for place, tensor in zip(batch, tensors, strict=True):
            place[..., : tensor.shape[-2], : tensor.shape[-1]] = tensor
        return batch

    void = ignore_index or {}
    first = samples[0]
    return Batch(
        images={m: stack([s.images[m] for s in samples], 0.0) for m in first.images},
        targets={h: stack([s.targets[h] for s in samples], void.get(h, VOID)) for h in first.targets},
        ids=tuple(s.id for s in samples),
        indices=tuple(s.index for s in samples),
        sizes=sizes,
        instances=None
        if first.instances is None
        else stack([s.instances for s in samples if s.instances is not None], 0),
        weight=None if first.weight is None else stack([s.weight for s in samples if s.weight is not None], 0.0),
        references={name: stack([s.references[name] for s in samples], 0) for name in first.references},
    )


@dataclass(frozen=True)
class TileGeometry:
    """Which input sides a network takes, and their output sides.

    An input of `offset + step * k` pixels (k >= minimum) gives an output smaller by `2 * margin`. The published
    U-Net is `TileGeometry(step=16, offset=60, margin=92, minimum=8)`: 572 in, 388 out. `TileGeometry()` takes any size
    and keeps it.

    Attributes:
        step: distance between valid input sizes.
        offset: the input size at k = 0.
        margin: pixels lost on each side.
        minimum: the smallest k whose output is not empty.
        context: pixels on each side of an output pixel that can affect it (half the receptive field), by which tiles
            of a padded network overlap; `margin` for an unpadded one.
    """

    step: int = 1
    offset: int = 0
    margin: int = 0
    minimum: int = 1
    context: int = 0

    def is_valid(self, size: int) -> bool:
        """Whether an input side of `size` pixels is valid."""
        return size >= self.offset + self.step * self.minimum and (size - self.offset) % self.step == 0

    def output_size(self, size: int, key: str | None = None) -> int:
        """Output side for a valid input side.

        Args:
            size: in pixels.
            key: its config key, for the error.

        Raises:
            SegbenchError: the size is not valid; the nearest valid ones are named.
        """
        if not self.is_valid(size):
            sides = [side for side in self.nearest(size) if side is not None]
            near, outputs = (" or ".join(str(side - less) for side in sides) for less in (0, 2 * self.margin))
            raise SegbenchError(
                f"an input side of {size} pixels{f' ({key})' if key else ''}",
                f"{self.offset} + {self.step} k pixels, k >= {self.minimum}",
                f"use {near} (output {outputs})",
            )
        return size - 2 * self.margin

    def nearest(self, size: int) -> tuple[int | None, int]:
        """The nearest valid input sides: at or below `size`, or None; and at or above."""
        smallest = self.offset + self.step * self.minimum
        if size <= smallest:
            return (smallest if size == smallest else None), smallest
        k, rest = divmod(size - self.offset, self.step)
        below = self.offset + self.step * k
        return below, below if rest == 0 else below + self.step

    def input_for(self, output: int) -> int:
        """The smallest valid input side whose output covers `output` pixels."""
        return self.nearest(output + 2 * self.margin)[1]


OF_CLASSES = ("iu", "dice")
"""Scores that each class has for itself, as `iu/<class>`."""


def of_class(key: str) -> tuple[str, str] | None:
    """Which class a score is of, and which of `OF_CLASSES` it is; None for a score over all classes.

    Args:
        key: a score's name, with or without its split and head.

    Example:
        >>> of_class("test/iu/cell"), of_class("dice/cat"), of_class("test/mean_iu")
        (('iu', 'cell'), ('dice', 'cat'), None)
    """
    parts = key.split("/")
    # A class may be called as a score, or have slashes in its name: the first part that is a score's is it.
    place = next((place for place, part in enumerate(parts[:-1]) if part in OF_CLASSES), None)
    return None if place is None else (parts[place], "/".join(parts[place + 1 :]))


@dataclass(frozen=True)
class ScoreInfo:
    """A score's name and meaning.

    Attributes:
        name: the key in `results.json`, without split and head.
        range: its smallest and largest value.
        higher_is_better: the direction.
        version: of the definition; different versions are never compared.
        test_only: computed at test, not at every validation.
    """

    name: str
    range: tuple[float, float]
    higher_is_better: bool
    version: str
    test_only: bool = False

"""Any torch Dataset of (image, mask) pairs as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segbench.data.raw import RawImage, Source
from segbench.errors import SegbenchError
from segbench.spec import VOID, DatasetSpec, HeadSpec, ModalitySpec

_LOOKED_AT = 100
"""Training images of which mean and deviation are taken."""


class Indexed(Protocol):
    """What a torch Dataset is here: `len(pairs)`, and `pairs[index]`, which gives an image and a mask."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Pairs(Source):
    """A split: the pairs of a torch Dataset, in its order.

    Args:
        split: the prefix of the ids.
        pairs: the Dataset, without random augmentation: an image is a function of its index.
        classes: K; labels are below it, or void.
        ignore_index: the void label.
    """

    def __init__(self, split: str, pairs: Indexed, classes: int, ignore_index: int) -> None:
        self._pairs, self._classes, self._ignore_index = pairs, classes, ignore_index
        self.ids = tuple(f"{split}-{number:06d}" for number in range(len(pairs)))

    def read(self, index: int) -> RawImage:
        """The pair at `index`.

        Raises:
            SegbenchError: it is no pair, its sizes differ, or a label is no class.
        """
        pair = self._pairs[index]
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise SegbenchError(
                f"{type(self._pairs).__name__}[{index}] gives a {type(pair).__name__}",
                "(image, mask): a CHW tensor, an HW or HWC array or a PIL image, and HW class numbers",
                "return such a pair from __getitem__",
            )
        image, label_HW = _image(pair[0]), np.squeeze(np.asarray(pair[1]))
        if label_HW.shape != image.shape[:2]:
            raise SegbenchError(
                f"{self.ids[index]}: an image of {image.shape} and a mask of {label_HW.shape}",
                "a mask HW of the image's size; tensors are CHW, arrays HWC",
                "correct the Dataset, and leave normalising and resizing of one of the two out of it",
            )
        labels = np.unique(label_HW)
        wrong = [int(label) for label in labels if not 0 <= label < self._classes and label != self._ignore_index]
        if wrong:
            raise SegbenchError(
                f"{self.ids[index]}: labels {', '.join(map(str, wrong[:6]))}",
                f"0 to {self._classes - 1}, and {self._ignore_index} for void",
                "correct data.classes or data.ignore_index",
            )
        return RawImage({"image": image}, {"semantic": label_HW.astype(np.uint8)}, self.ids[index])


def _image(image: Any) -> NDArray[np.generic]:
    """HW or HWC."""
    import torch

    if isinstance(image, torch.Tensor):
        array = np.ascontiguousarray(image.numpy().transpose(1, 2, 0) if image.ndim == 3 else image.numpy())
    else:
        array = np.asarray(image)
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


class TorchDataset:
    """The pairs of up to three torch Datasets.

    Args:
        train: pairs that train.
        val: pairs that select the checkpoint.
        test: pairs that are reported.
        classes: K, or the names of K classes.
        ignore_index: the void label.
        mean: of each channel, in the unit of the images; None: that of up to 100 training images.
        std: likewise.

    Raises:
        SegbenchError: something that is no Dataset, or pairs that cannot be read.
    """

    def __init__(
        self,
        train: Any,
        classes: int | list[str],
        val: Any = None,
        test: Any = None,
        ignore_index: int = VOID,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        names = tuple(classes) if isinstance(classes, (list, tuple)) else tuple(f"class {k}" for k in range(classes))
        self._splits: dict[str, Pairs] = {}
        for name, pairs in (("train", train), ("val", val), ("test", test)):
            if pairs is None:
                continue
            if not (hasattr(pairs, "__getitem__") and hasattr(pairs, "__len__")):
                raise SegbenchError(
                    f"data.{name}, a {type(pairs).__name__}",
                    "a torch Dataset with a length: {_target_: mine.Streets, root: FOLDER}",
                    "name one",
                )
            self._splits[name] = Pairs(name, pairs, len(names), ignore_index)
        found = _scale(self._splits["train"]) if mean is None or std is None else (mean, std)
        mean, std = tuple(mean or found[0]), tuple(std or found[1])  # type: ignore[assignment]
        first = next(iter(self._splits["train"].read(0).images.values()))
        unit = "value, 0 to 255" if first.dtype == np.uint8 else f"value as the Dataset gives it, {first.dtype}"
        generator = np.random.default_rng(0)
        colours = [(0, 0, 0), *(tuple(map(int, each)) for each in generator.integers(40, 256, (len(names) - 1, 3)))]
        self._spec = DatasetSpec(
            name=type(train).__name__,
            modalities={"image": ModalitySpec(len(mean or ()), mean, std, unit)},  # type: ignore[arg-type]
            heads={"semantic": HeadSpec(names, tuple(colours), ignore_index=ignore_index)},  # type: ignore[arg-type]
            citation="",
            licence="",
            protocol=", ".join(f"{name} {len(source)}" for name, source in self._splits.items()),
        )

    @property
    def spec(self) -> DatasetSpec:
        """One modality, `image`, and one head, `semantic`."""
        return self._spec

    def split(self, name: str) -> Source | None:
        """The split, or None."""
        return self._splits.get(name)


def _scale(source: Pairs) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of each channel, over images that are spread over the split."""
    if len(source) == 0:
        raise SegbenchError("data.train is empty", "a Dataset of at least one pair", "correct its arguments")
    places = np.unique(np.linspace(0, len(source) - 1, _LOOKED_AT).astype(int))
    sums, squares, pixels = 0.0, 0.0, 0
    for place in places.tolist():
        image = next(iter(source.read(place).images.values())).astype(np.float64)
        flat_NC = image.reshape(image.shape[0] * image.shape[1], -1)
        sums, squares, pixels = sums + flat_NC.sum(0), squares + (flat_NC**2).sum(0), pixels + len(flat_NC)
    mean = np.asarray(sums) / pixels
    std = np.sqrt(np.maximum(np.asarray(squares) / pixels - mean**2, 0.0))
    return mean.tolist(), np.where(std > 0, std, 1.0).tolist()

"""A data set: bright discs on a noisy ground."""

import numpy as np
from segbench.data.raw import RawImage, Source
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec


class Drawn(Source):
    """A split. An image is a function of its index, so that it is the same in every process.

    Args:
        name: of the split; splits are drawn apart.
        count: images.
        side: of an image, in pixels.
    """

    def __init__(self, name: str, count: int, side: int) -> None:
        self.ids = tuple(f"{name}-{number:03d}" for number in range(count))
        self._name, self._side = name, side

    def read(self, index: int) -> RawImage:
        """An image, HW uint8, and its mask, HW uint8: 0 ground, 1 disc."""
        rng = np.random.default_rng([index, *self._name.encode()])
        rows, columns = np.mgrid[: self._side, : self._side]
        mask = np.zeros((self._side, self._side), np.uint8)
        for row, column, radius in zip(*rng.uniform(0, self._side, (2, 4)), rng.uniform(4, 10, 4), strict=True):
            mask[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = 1
        image = 80 + 60 * mask + rng.normal(0, 30, mask.shape)
        return RawImage({"grey": image.clip(0, 255).astype(np.uint8)}, {"kind": mask}, self.ids[index])


class Discs:
    """The data set: `spec` says what its images are, `split` gives them.

    Args:
        train: images to train on.
        val: images that choose the checkpoint.
        test: images that are reported.
        side: of an image, in pixels.
    """

    def __init__(self, train: int = 24, val: int = 4, test: int = 8, side: int = 64) -> None:
        counts = {"train": train, "val": val, "test": test}
        self._splits = {name: Drawn(name, count, side) for name, count in counts.items()}

    @property
    def spec(self) -> DatasetSpec:
        """Channels and scale of the images, names and colours of the classes."""
        grey = ModalitySpec(channels=1, mean=(90.0,), std=(40.0,), unit="grey level, 0 to 255")
        kind = HeadSpec(class_names=("ground", "disc"), palette=((0, 0, 0), (255, 255, 255)))
        return DatasetSpec("discs", {"grey": grey}, {"kind": kind}, citation="", licence="", protocol="drawn")

    def split(self, name: str) -> Source | None:
        """The images of a split; None if there is none of that name."""
        return self._splits.get(name)

"""What to write of a run's predictions, and under which names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.data.pascal_voc import CLASSES as VOC_CLASSES
from segbench.errors import SegbenchError, check, check_one_of
from segbench.metrics.decoding import Decoding
from segbench.spec import DatasetSpec

KINDS = ("masks", "probabilities", "overlays", "instances", "voc", "ctc")
STORES = ("tiff", "zarr")
_FRAME = re.compile(r"(?:(?P<sequence>\d\d)(?:/t|-)|t)(?P<number>\d+)")
"""The name of a frame of the Cell Tracking Challenge: 01/t000, 01-000 as ids of splits are, or t000."""
LARGE_PIXELS = 2**26
"""Above this, pictures are TIFF instead of PNG, and objects, which need the whole image, are refused."""


@dataclass(frozen=True)
class Settings:
    """What to write.

    Attributes:
        kinds: some of `KINDS`.
        store: of masks, probabilities and instances: `tiff`, `zarr`, or None: TIFF, but PNG for a mask or overlay of a
            single page that has no place in the world.
        own_values: masks hold the values of the user's masks; false: class indices.
        decoding: of objects from probabilities.
        opacity: of the overlays' tint.
        voc_year: of the server's folder.
        voc_competition: likewise.
    """

    kinds: tuple[str, ...]
    store: str | None = None
    own_values: bool = True
    decoding: Decoding = field(default_factory=Decoding)
    opacity: float = 0.4
    voc_year: int = 2012
    voc_competition: str = "comp6"


@dataclass(frozen=True)
class Target:
    """What the outputs of one input depend on.

    Attributes:
        name: of the input.
        sizes: H and W of its pages.
        spec: of the run.
        folder: `output=`.
        settings: what to write.
        placement: the input's georeference, as `TiffImages.placement`, copied to TIFF outputs.
        turn: EXIF's orientation, which viewers apply to the input and which was not applied to its pixels.
    """

    name: str
    sizes: tuple[tuple[int, int], ...]
    spec: DatasetSpec
    folder: Path
    settings: Settings
    placement: Mapping[str, Any] = field(default_factory=dict)
    turn: int = 1

    @property
    def is_picture(self) -> bool:
        """Whether it is a single page small enough for PNG, with no place in the world, and TIFF is not asked for."""
        small = len(self.sizes) == 1 and self.sizes[0][0] * self.sizes[0][1] <= LARGE_PIXELS
        return small and self.settings.store != "tiff" and "extratags" not in self.placement

    def path(self, kind: str, suffix: str, *parts: str) -> Path:
        """`NAME<-part...><suffix>`, in a folder of the kind if there are several kinds."""
        folder = self.folder / kind if len(self.settings.kinds) > 1 else self.folder
        return folder / f"{'-'.join((self.name, *parts))}{suffix}"

    def head_part(self, head: str) -> tuple[str, ...]:
        """The head's name if there are several."""
        return (head,) if len(self.spec.heads) > 1 else ()

    def about(self, head: str) -> dict[str, Any]:
        """A head's metadata of an array."""
        return {"head": head, "class_names": list(self.spec.heads[head].class_names)}


def check_settings(settings: Settings, spec: DatasetSpec) -> None:
    """Refuse settings that do not suit the run.

    Raises:
        SegbenchError: an unknown kind or store, a kind twice, the VOC format for other classes, or ctc for several
            heads.
    """
    wrong = [kind for kind in settings.kinds if kind not in KINDS]
    if wrong or not settings.kinds or len(set(settings.kinds)) < len(settings.kinds):
        given = settings.kinds[0] if len(settings.kinds) == 1 else f"[{','.join(settings.kinds)}]"
        raise SegbenchError(f"format={given}", f"some of {', '.join(KINDS)}, each once", "as format=[masks,overlays]")
    if settings.store is not None:
        check_one_of("store", settings.store, STORES)
    check("opacity", settings.opacity, 0 <= settings.opacity <= 1, "0 to 1", 0.4)
    names = [head.class_names for head in spec.heads.values()]
    if "voc" in settings.kinds and names != [VOC_CLASSES]:
        raise SegbenchError(
            f"format=voc for a run on {spec.name} with {' and '.join(str(len(n)) for n in names)} classes",
            f"the {len(VOC_CLASSES)} classes of PASCAL VOC",
            "use a run with data=pascal_voc, or format=masks",
        )
    if "ctc" in settings.kinds and len(spec.heads) > 1:
        raise SegbenchError(
            f"format=ctc for a run with heads {', '.join(spec.heads)}", "one head", "use format=instances"
        )
    good = settings.voc_competition in ("comp5", "comp6")
    expected = "comp5 (trained on VOC alone) or comp6 (on other data too)"
    check("voc.competition", settings.voc_competition, good, expected, "comp6")


def check_frames(names: Sequence[str]) -> list[re.Match[str]]:
    """The `sequence`, None if it is not in the name, and the `number` of each input for `ctc`.

    Raises:
        SegbenchError: some are no frames.
    """
    frames = [_FRAME.fullmatch(name) for name in names]
    if others := [name for name, frame in zip(names, frames, strict=True) if frame is None]:
        raise SegbenchError(
            f"format=ctc and {len(others)} of {len(names)} inputs that are no frames: {', '.join(others[:3])}",
            "frames of a sequence by their names, such as 01/t000 or t000",
            "give the folder of the frames as input=, such as PhC-C2DH-U373/01, or use format=instances",
        )
    return [frame for frame in frames if frame is not None]

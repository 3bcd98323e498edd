"""The gallery of what is read: every kind is drawn, written as a file and read by segbench's own readers.

A card shows what the reader made of the files, what it printed, and what a prediction would write; so it cannot say
anything else than the code does.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH, FILES = 72, 96, 4
COLOURS = np.array([(20, 20, 60), (230, 120, 40), (60, 190, 90)], np.uint8)
"""Of background, cell and nucleus, where masks have colours."""
Array = NDArray[Any]
Write = Callable[[Path, Array], None]


def ids_of(number: int) -> NDArray[np.uint8]:
    """HW: 0, cells as 1, their nuclei as 2; fewer cells in each further picture."""
    ids_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    rng = np.random.default_rng(number)
    for cell in range(5 - number % 3):
        x, y = 16 + 30 * (cell % 3) + int(rng.integers(-4, 5)), 18 + 34 * (cell // 3) + int(rng.integers(-4, 5))
        cv2.ellipse(ids_HW, (x, y), (13, 11), 30 * cell, 0, 360, 1, -1)
        cv2.ellipse(ids_HW, (x, y), (6, 5), 30 * cell, 0, 360, 2, -1)
    return ids_HW


def grey_of(number: int) -> NDArray[np.uint8]:
    """HW: the picture of `ids_of`."""
    noise_HW = np.random.default_rng(number).normal(0, 14, (HEIGHT, WIDTH))
    grey_HW: NDArray[np.uint8] = (60 + 65.0 * ids_of(number) + noise_HW).clip(0, 250).astype(np.uint8)
    return grey_HW


def rgb_of(number: int) -> NDArray[np.uint8]:
    """HW3: the same in colours."""
    tint_3 = np.array([1.0, 0.75, 0.85])
    rgb_HW3: NDArray[np.uint8] = (grey_of(number)[..., None] * tint_3).astype(np.uint8)
    return rgb_HW3


def numbers_of(number: int) -> NDArray[np.uint16]:
    """HW: each cell with a number of its own."""
    _, found_HW = cv2.connectedComponents((ids_of(number) > 0).astype(np.uint8))
    numbers_HW: NDArray[np.uint16] = found_HW.astype(np.uint16)
    return numbers_HW


def encoded(path: Path, image: Array, *options: int) -> None:
    """By OpenCV, in the format of the name."""
    bgr = image if image.ndim == 2 else image[..., ::-1]
    path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(bgr), options)[1].tobytes())


def lossless_webp(path: Path, image: Array) -> None:
    """Above a quality of 100, OpenCV writes WebP without loss."""
    encoded(path, image, cv2.IMWRITE_WEBP_QUALITY, 101)


def gif(path: Path, image: Array) -> None:
    """By Pillow, which keeps the indices."""
    from PIL import Image

    Image.fromarray(image).save(path)


def palette(path: Path, image: Array) -> None:
    """A PNG of indices with a palette."""
    from PIL import Image

    indexed = Image.fromarray(image)
    indexed.putpalette(COLOURS.ravel().tolist())
    indexed.save(path)


def turned_jpeg(path: Path, image: Array) -> None:
    """A photograph taken with the camera on its side, as EXIF says."""
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(image).save(path, quality=95, exif=exif)


def tiff(**options: Any) -> Write:
    """By tifffile with these options."""

    def write(path: Path, image: Array) -> None:
        import tifffile

        tifffile.imwrite(path, image, **({"photometric": "minisblack", "metadata": None} | options))

    return write


_GEO = (
    (33550, "d", 3, (0.5, 0.5, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 400000.0, 5800000.0, 0.0), True),
    (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
    (42113, "s", 0, "0", True),
)
"""Half a metre a pixel in UTM zone 33N, and 0 as nodata."""


def nifti(path: Path, image: Array) -> None:
    """One slice or several; the first axis of NIfTI runs along rows."""
    import nibabel

    stack_NHW = image if image.ndim == 3 else image[None]
    nibabel.save(nibabel.Nifti1Image(stack_NHW.transpose(2, 1, 0).astype(np.int16), np.eye(4)), path)


def mrc(path: Path, image: Array) -> None:
    """One section."""
    import mrcfile

    with mrcfile.new(path) as file:
        file.set_data(image.astype(np.int16))


def dicom(path: Path, image: Array) -> None:
    """An X-ray picture in which 0 is white."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Rows, file.Columns = image.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME1"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelData = (4095 - image.astype("<u2") * 16).astype("<u2").tobytes()
    file.save_as(path, enforce_file_format=True)


def zarr_array(path: Path, image: Array) -> None:
    """An array with named axes."""
    import zarr

    zarr.create_array(path, data=image, dimension_names=("y", "x"))


def with_gap(image: Array, value: float) -> Array:
    """A corner without data."""
    image = image.copy()
    image[: HEIGHT // 2, : WIDTH // 3] = value
    return image


def cmyk_of(number: int) -> Array:
    """HW4: `rgb_of` for a printer."""
    return np.concatenate([255 - rgb_of(number), np.zeros((HEIGHT, WIDTH, 1), np.uint8)], 2)


def smoothed(number: int) -> Array:
    """A mask that was resized by interpolation."""
    return cv2.GaussianBlur(two(number), (0, 0), 0.8)


@dataclass(frozen=True)
class Kind:
    """One card.

    Attributes:
        title: its heading.
        what: it is, how it is recognised.
        option: what changes it.
        image: of a number, as it is written.
        image_suffix: of its file.
        write_image: writes it.
        mask: of a number, as it is written; None: the kind is only predicted.
        mask_suffix: of its file.
        write_mask: writes it.
        settings: of `ImageFolder`.
        image_name: with a place for the number.
        mask_name: likewise.
        shows_names: whether the names matter, not the pictures.
        suffixes: of files that are read as this kind.
        beside: further files, by name.
    """

    title: str
    what: str
    option: str = ""
    image: Callable[[int], Array] = grey_of
    image_suffix: str = ".png"
    write_image: Write = encoded
    mask: Callable[[int], Array] | None = lambda number: ids_of(number) * np.uint8(100)
    mask_suffix: str = ".png"
    write_mask: Write = encoded
    settings: Mapping[str, Any] = field(default_factory=dict)
    image_name: str = "images/cell_{0}"
    mask_name: str = "masks/cell_{0}"
    shows_names: bool = False
    suffixes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """Of its picture."""
        return "".join(c if c.isalnum() else "_" for c in self.title.lower()).strip("_")


def two(number: int) -> Array:
    """Two values, 0 and 255."""
    return (ids_of(number) > 0).astype(np.uint8) * np.uint8(255)


def void_edge(number: int) -> Array:
    """Ids with 255 around every cell."""
    ids_HW = ids_of(number)
    grown_HW = cv2.dilate((ids_HW > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    return np.where((grown_HW > 0) & (ids_HW == 0), np.uint8(255), ids_HW)


VOLUMES = "The slices are the pages of a stack. Needs `pip install 'segbench[volumes]'`."

GALLERY: Mapping[str, Sequence[Kind]] = {
    "files": (
        Kind("PNG", "8 or 16 bit, grey, RGB, RGBA or palette; bytes after its end do not matter.", suffixes=(".png",)),
        Kind(
            "JPEG",
            "Photographs. Refused as masks, as its compression changes values.",
            image=rgb_of,
            image_suffix=".jpg",
            suffixes=(".jpg", ".jpeg"),
        ),
        Kind("BMP", "As PNG.", image=rgb_of, image_suffix=".bmp", mask_suffix=".bmp", suffixes=(".bmp",)),
        Kind(
            "GIF",
            "One frame; a palette of greys is grey. As a mask: indices, of greys the levels.",
            image_suffix=".gif",
            write_image=gif,
            mask_suffix=".gif",
            write_mask=gif,
            suffixes=(".gif",),
        ),
        Kind(
            "WebP",
            "As a mask only where it is lossless, which the file says.",
            image=rgb_of,
            image_suffix=".webp",
            write_image=lossless_webp,
            suffixes=(".webp",),
        ),
        Kind(
            "JPEG 2000",
            "As a mask only with the reversible wavelet, which the file says.",
            image=rgb_of,
            image_suffix=".jp2",
            suffixes=(".jp2",),
        ),
        Kind(
            "TIFF",
            "8, 16 or 32 bit or float, any number of channels; strips, tiles, pyramids, BigTIFF, any compression.",
            image=lambda number: grey_of(number).astype(np.uint16) * 200,
            image_suffix=".tif",
            write_image=tiff(),
            suffixes=(".tif", ".tiff"),
        ),
        Kind(
            "TIFF stack",
            "Each page is an image, and each page of the mask its mask. The pages of a file stay in one split.",
            "`data.axes` where the file does not name its axes",
            image=lambda number: np.stack([grey_of(number + k) for k in range(3)]),
            image_suffix=".tif",
            write_image=tiff(),
            mask=lambda number: np.stack([ids_of(number + k) for k in range(3)]),
            mask_suffix=".tif",
            write_mask=tiff(),
        ),
        Kind(
            "DICOM",
            f"Frames in the units of slope and intercept, dark as low: here 0 is white. {VOLUMES}",
            image_suffix=".dcm",
            write_image=dicom,
            suffixes=(".dcm",),
        ),
        Kind(
            "NIfTI",
            f"Images and masks. {VOLUMES}",
            image_suffix=".nii.gz",
            write_image=nifti,
            mask_suffix=".nii.gz",
            write_mask=nifti,
            suffixes=(".nii", ".nii.gz"),
        ),
        Kind("MRC", f"Electron microscopy. {VOLUMES}", image_suffix=".mrc", write_image=mrc, suffixes=(".mrc",)),
        Kind(
            "zarr, OME-Zarr",
            "Predicted, not trained on: window by window, so of any size; plates field by field. "
            "Needs `pip install 'segbench[zarr]'`.",
            "`data.axes` where the array does not name its axes",
            image_suffix=".zarr",
            write_image=zarr_array,
            mask=None,
        ),
    ),
    "statements": (
        Kind(
            "0 is white",
            "A TIFF of photometric WhiteIsZero is reversed: saved either way it is one picture.",
            image=lambda number: 255 - grey_of(number),
            image_suffix=".tif",
            write_image=tiff(photometric="miniswhite"),
        ),
        Kind(
            "CMYK and YCbCr",
            "TIFFs of these are converted to RGB. CIELab and other colour models are refused.",
            image=cmyk_of,
            image_suffix=".tif",
            write_image=tiff(photometric="separated"),
        ),
        Kind(
            "GeoTIFF with nodata",
            "GDAL's tag: the grey corner is void in training and scores, and in no mean. "
            "Transform and CRS are in the output.",
            "`data.nodata=VALUE` for files that declare none",
            image=lambda number: with_gap(grey_of(number).clip(1), 0),
            image_suffix=".tif",
            write_image=tiff(extratags=_GEO),
        ),
        Kind(
            "NaN",
            "A pixel of a float image with NaN has no data.",
            image=lambda number: with_gap(grey_of(number) / np.float32(255), np.nan),
            image_suffix=".tif",
            write_image=tiff(),
        ),
        Kind(
            "A value as nodata",
            "Here `data.nodata=250`.",
            "`data.nodata`",
            image=lambda number: with_gap(grey_of(number).clip(0, 249), 250),
            settings={"nodata": 250},
        ),
        Kind(
            "EXIF turn",
            "Photographs are read as they are stored, which is how most masks lie; `segbench data check` tells of any "
            "turned one.",
            "`data.exif=turn` reads images and masks as viewers show them",
            image=rgb_of,
            image_suffix=".jpg",
            write_image=turned_jpeg,
        ),
        Kind(
            "EXIF turn, applied",
            "The same photographs with `data.exif=turn`, and masks that were drawn on what a viewer shows.",
            "`data.exif`",
            image=rgb_of,
            image_suffix=".jpg",
            write_image=turned_jpeg,
            mask=lambda number: np.ascontiguousarray(np.rot90(ids_of(number), -1)) * np.uint8(100),
            settings={"exif": "turn"},
        ),
        Kind(
            "Grey beside colour",
            "Half of these files are RGB. If every colour is grey, all are read as grey, else as RGB.",
            "`data.channels=grey`, `data.channels=rgb`",
            image=lambda number: grey_of(number) if number % 2 else np.repeat(grey_of(number)[..., None], 3, 2),
        ),
        Kind(
            "Axes",
            "Four channels in front, in a file that does not say so: `data.axes=CYX`. ImageJ, OME and zarr name them.",
            "`data.axes`",
            image=lambda number: np.stack([grey_of(number), *rgb_of(number).transpose(2, 0, 1)]),
            image_suffix=".tif",
            write_image=tiff(),
            settings={"axes": "CYX"},
        ),
    ),
    "masks": (
        Kind("0 and 255", "Two values, 0 and the highest, are background and foreground.", "`data.classes`", mask=two),
        Kind(
            "Ids with gaps",
            "Each value is a class, named after itself.",
            "`data.classes=[background,cell,nucleus]`, in ascending order",
            settings={"classes": ["background", "cell", "nucleus"]},
        ),
        Kind(
            "Merged values",
            "`data.classes={background: 0, cell: [100, 200]}`: a prediction writes the first value of each.",
            "`data.classes`",
            settings={"classes": {"background": 0, "cell": [100, 200]}},
        ),
        Kind("Palette", "The indices are the classes; the palette is kept.", mask=ids_of, write_mask=palette),
        Kind(
            "Colours",
            "RGB: each colour is a class.",
            "`data.classes={sky: [0, 0, 255], rest: rest}`",
            mask=lambda number: COLOURS[ids_of(number)],
        ),
        Kind(
            "255 as void",
            "Here `data.ignore_index=255`. Without it, values that may be void are asked about.",
            "`data.ignore_index`",
            mask=void_edge,
            settings={"ignore_index": 255},
        ),
        Kind(
            "-1 in 16 bits",
            "Signed values, here with `data.ignore_index=-1`.",
            "`data.ignore_index`",
            mask=lambda number: np.where(void_edge(number) == 255, -1, ids_of(number).astype(np.int16)),
            mask_suffix=".tif",
            write_mask=tiff(),
            settings={"ignore_index": -1},
        ),
        Kind(
            "Objects, as classes",
            "Each cell has a number. `check` notices.",
            "`experiment=image_objects`",
            mask=numbers_of,
            mask_suffix=".tif",
            write_mask=tiff(),
        ),
        Kind(
            "Objects",
            "`data=image_objects`: background, object, and a border where objects come near. "
            "`format=instances` numbers them.",
            "`data.border`",
            mask=numbers_of,
            mask_suffix=".tif",
            write_mask=tiff(),
            settings={"objects": True},
        ),
        Kind("Smoothed masks", "Resized by interpolation, which invents values: refused.", mask=smoothed),
        Kind("JPEG masks", "Refused.", mask=two, mask_suffix=".jpg"),
    ),
    "names": (
        Kind("The same names", "Any suffix, any subfolders.", shows_names=True),
        Kind(
            "Masks with a suffix",
            "Guessed from the names, and shown.",
            "`data.pairing`, `data.mask_suffix`",
            mask_name="masks/cell_{0}_mask",
            shows_names=True,
        ),
        Kind(
            "A part is replaced",
            "Also guessed; names that pair in two ways are refused.",
            "`data.pairing`",
            image_name="images/{0}_training",
            mask_name="masks/{0}_manual1",
            shows_names=True,
        ),
        Kind(
            "One folder for both",
            "`data.images` and `data.masks` name the same folder.",
            "`data.pairing`",
            image_name="all/cell_{0}",
            mask_name="all/cell_{0}_mask",
            shows_names=True,
        ),
        Kind(
            "Folders train, val, test",
            "They are the split.",
            "`data.split=shares` draws one instead",
            image_name="images/{1}/cell_{0}",
            mask_name="masks/{1}/cell_{0}",
            settings={"split": "auto"},
            shows_names=True,
        ),
        Kind(
            "Groups",
            "Here `data.group='[^_]+'`: what comes before the first underscore (a patient, a scene) is never split.",
            "`data.group`",
            image_name="images/{2}_{0}",
            mask_name="masks/{2}_{0}",
            settings={"group": "[^_]+"},
            shows_names=True,
        ),
        Kind(
            "Folds",
            "Here `data.folds=2 data.fold=0`.",
            "`data.folds`, `data.fold`, `data.test`",
            settings={"folds": 2, "fold": 0, "test": 0.0},
            shows_names=True,
        ),
        Kind(
            "Other files",
            "Counted with the reason: a kind that is not read, hidden, a link to nothing, no partner.",
            "`data.partial=true` leaves out files without a partner",
            beside=("images/notes.txt", "images/.hidden.png", "masks/table.csv"),
            shows_names=True,
        ),
    ),
}

_SHARE = re.compile(r"\S+ +[\d.]+%")
"""A row of the table of classes."""
_IDS = re.compile(r" \(ids \w+\)")
_FOLDERS, _GROUPS = ("train", "train", "val", "test"), ("anna", "anna", "ben", "carl")
_ALWAYS = ("class ", "scanned ", "training images", "all ")
"""What is printed of every folder starts with one of these."""


def shown(text: str, beside: str) -> tuple[str, dict[str, bytes]]:
    """A page with the cards in the place of its comments `<!-- gallery SECTION -->`, and their pictures by name.

    Args:
        text: of the page.
        beside: the folder of its pictures, as the page names it.
    """
    pictures: dict[str, bytes] = {}
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        try:
            for section, kinds in GALLERY.items():
                cards = [card(kind, Path(folder) / kind.slug, pictures, beside) for kind in kinds]
                cells = f'<div class="gallery" markdown>\n\n{"".join(cards)}</div>\n'
                text = text.replace(f"<!-- gallery {section} -->", cells)
        finally:
            del os.environ["XDG_CACHE_HOME"]
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before
    return text, pictures


def _write(kind: Kind, folder: Path) -> None:
    for number in range(FILES):
        placed = number, _FOLDERS[number], _GROUPS[number]
        image = folder / (kind.image_name.format(*placed) + kind.image_suffix)
        image.parent.mkdir(parents=True, exist_ok=True)
        kind.write_image(image, kind.image(number))
        if kind.mask is not None:
            mask = folder / (kind.mask_name.format(*placed) + kind.mask_suffix)
            mask.parent.mkdir(parents=True, exist_ok=True)
            kind.write_mask(mask, kind.mask(number))
    for name in kind.beside:
        (folder / name).write_text("")


def card(kind: Kind, folder: Path, pictures: dict[str, bytes], beside: str) -> str:
    """A kind's card as Markdown; its files are written into the folder, its picture is added to the others."""
    _write(kind, folder)
    found, drawn, written = _read(kind, folder)
    if kind.shows_names:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        seen = "```text\n" + "\n".join(names) + "\n```"
    else:
        pictures[f"{beside}/{kind.slug}.png"] = cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGBA2BGRA))[
            1
        ].tobytes()
        seen = f"![{kind.title}: image and labels as they are read]({beside}/{kind.slug}.png)"
    lines = [f"### {kind.title}", seen, f"{' '.join(f'`{suffix}`' for suffix in kind.suffixes)} {kind.what}".strip()]
    if found:
        lines.append("```text\n" + "\n".join(found).replace(f"{folder}/", "") + "\n```")
    about = {"Changed by": kind.option, "`predict` writes": "" if kind.shows_names else written}
    lines.append("  \n".join(f"**{name}** {text}" for name, text in about.items() if text))
    return '<div class="kind" markdown>\n\n' + "\n\n".join(line for line in lines if line) + "\n\n</div>\n\n"


def _read(kind: Kind, folder: Path) -> tuple[list[str], NDArray[np.uint8], str]:
    """What is printed, the picture, and what a prediction of the first image writes."""
    from segbench.data.files.image_files import open_images
    from segbench.data.image_folder import ImageFolder
    from segbench.display.panels import colour_labels, grey_to_rgb
    from segbench.errors import SegbenchError
    from segbench.prediction.overlay import as_picture, grey_range

    first = 0, _FOLDERS[0], _GROUPS[0]
    image = folder / (kind.image_name.format(*first) + kind.image_suffix)
    if kind.mask is None:
        with open_images(image) as opened:
            stored_HWC = opened.read(0)
        return [], _side_by_side(as_picture(stored_HWC, grey_range(stored_HWC))), "zarr"
    told, handler = [], _Lines()
    log = logging.getLogger("segbench.data")
    level, log.level = log.level, logging.INFO
    log.addHandler(handler)
    try:
        options = {"classes": "auto", "val": 0.25, "test": 0.25, **kind.settings}
        dataset = ImageFolder(
            str(folder / kind.image_name.split("/")[0]), str(folder / kind.mask_name.split("/")[0]), **options
        )
    except SegbenchError as error:
        mask = cv2.imread(str(folder / (kind.mask_name.format(*first) + kind.mask_suffix)))
        return [f"error: {error}"], _side_by_side(as_picture(kind.image(0), None), mask), "nothing"
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    spec = dataset.spec
    head = spec.heads["semantic"]
    told = [line for line in handler.lines if not line.startswith(_ALWAYS) and not _SHARE.match(line)]
    # The split is the same but where names decide it, and so is the kind of plain images.
    plain = () if kind.shows_names else ("images of one's own",)
    plain += (f"{FILES} images (",) if kind.image is grey_of and kind.image_suffix == ".png" else ()
    told = [_IDS.sub("", line) for line in told if not line.startswith(plain)]
    source = dataset.split("train")
    raw = source.read(0)
    stored = raw.images["image"].astype(np.float32)
    drawn = grey_to_rgb(stored[None] if stored.ndim == 2 else np.ascontiguousarray(stored.transpose(2, 0, 1)))
    if raw.empty_HW is not None:
        drawn[raw.empty_HW] = 200
    label_HW3 = colour_labels(raw.labels["semantic"], head)
    return (
        told,
        _side_by_side(drawn, label_HW3),
        _output(image, dataset, any(line.startswith("no data") for line in told)),
    )


class _Lines(logging.Handler):
    """What is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _values(head: Any) -> Sequence[Any]:
    from segbench.prediction.coding import Coder

    return [row["value"] for row in Coder(head, own=True).table()["classes"]]


def _output(image: Path, dataset: Any, lacks_data: bool) -> str:
    """The file of masks that a prediction of an image writes, and its values."""
    from segbench.data.files.image_files import open_images
    from segbench.prediction.coding import Coder
    from segbench.prediction.outputs import Masks
    from segbench.prediction.settings import Settings, Target

    spec = dataset.spec
    head, reading = spec.heads["semantic"], spec.modalities["image"].reading
    with open_images(image, reading=reading) as opened:
        pages = len(opened)
        sizes = tuple(opened.shape(page)[:2] for page in range(pages))
        placement, turn = opened.placement, 1 if reading.exif == "turn" else opened.stated_turn(0)
    target = Target(image.stem, sizes, spec, image.parent, Settings(("masks",)), placement, turn)
    coder, suffix = Coder(head, own=True), Masks(target).files[0].path.suffix
    what = {".png": "PNG", ".tif": "TIFF"}[suffix]
    what = "GeoTIFF" if "extratags" in placement else what
    what += f" of {pages} pages" if pages > 1 else ""
    kind = {"ids": "values", "palette": "palette, indices", "colours": "colours"}[coder.kind]
    named = zip(_values(head), head.class_names, strict=True)
    values = [str(value) if name == str(value) else f"{value} {name}" for value, name in named]
    if lacks_data:
        values.append(f"{coder.table()['void']} without data")
    return f"{what}, {kind} {', '.join(values)}"


def _side_by_side(*pictures_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA, twice as large, with a transparent gap."""
    gap_HW4 = np.zeros((pictures_HW3[0].shape[0], 4, 4), np.uint8)
    parts = [part for picture in pictures_HW3 for part in (cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA), gap_HW4)]
    return np.repeat(np.repeat(np.hstack(parts[:-1]), 2, 0), 2, 1)

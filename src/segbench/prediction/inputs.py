"""The inputs that `input=`, `ids=` and `split=` name, each with one file per modality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from segbench.data.files.image_files import IMAGE_SUFFIXES
from segbench.data.files.volumes import split_name
from segbench.data.files.zarr_images import fields_of, is_zarr
from segbench.data.folder.listing import list_images
from segbench.data.id_lists import read_list
from segbench.data.raw import Source
from segbench.errors import SegbenchError
from segbench.prediction.pages import Opened, OpenedFiles, OpenedSource
from segbench.spec import DatasetSpec

KINDS = f"{' '.join(IMAGE_SUFFIXES)} or zarr"


class Input(Protocol):
    """One input, which becomes one output of each kind.

    Attributes:
        name: of its outputs.
        suffix: of its file, in lower case; `.zarr` for zarr, empty for an image of a split.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def suffix(self) -> str: ...  # noqa: D102

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files; none for an image of a split."""
        ...

    def stamp(self) -> list[list[Any]]:
        """Path, size and modification time of each file."""
        ...

    def open(self, spec: DatasetSpec) -> Opened:
        """Its pages."""
        ...


@dataclass(frozen=True)
class FileInput:
    """Files by modality.

    Attributes:
        name: their stem.
        paths: by modality.
    """

    name: str
    paths: Mapping[str, Path]

    @property
    def suffix(self) -> str:
        """Of the first modality's file, in lower case."""
        first = next(iter(self.paths.values()))
        return ".zarr" if is_zarr(first) else split_name(first.name)[1]

    @property
    def files(self) -> tuple[Path, ...]:
        """One per modality."""
        return tuple(self.paths.values())

    def stamp(self) -> list[list[Any]]:
        """Path, size and modification time of each file."""
        found = [(path.resolve(), path.stat()) for path in self.paths.values()]
        return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in found]

    def open(self, spec: DatasetSpec) -> Opened:
        """The files' pages."""
        return OpenedFiles(self.paths, spec)


@dataclass(frozen=True)
class SplitInput:
    """Images of a data set's split.

    Attributes:
        name: the id, or a name for a stack of them.
        source: the split.
        indices: of the images, each a page.
    """

    name: str
    source: Source
    indices: tuple[int, ...]
    suffix: str = ""
    files: tuple[Path, ...] = ()

    def stamp(self) -> list[list[Any]]:
        """The ids, whose images do not change."""
        return [[self.source.ids[index]] for index in self.indices]

    def open(self, spec: DatasetSpec) -> Opened:
        """The images."""
        return OpenedSource(self.source, self.indices)


def find_inputs(
    given: str | Mapping[str, str],
    ids: str | None,
    spec: DatasetSpec,
    output: Path,
    tell: Callable[[str], None] = lambda sentence: None,
) -> list[Input]:
    """The inputs in files and folders.

    Args:
        given: a file, a zarr folder or a folder of them; for several modalities a mapping of them, or a folder with one
            folder per modality.
        ids: a text file with the stems to take from a folder, or None for all.
        spec: of the run.
        output: where predictions go.
        tell: called with a sentence for each reason why files of a folder are not used.

    Raises:
        SegbenchError: a missing file, an empty folder, a missing modality, unmatched or repeated stems, unknown ids, or
            an output inside an input.
    """
    paths = _by_modality(given, spec)
    for path in paths.values():
        _check_there(path)
    if all(_is_one(path) for path in paths.values()):
        if ids is not None:
            raise SegbenchError(f"ids={ids} with input={given}", "ids= beside a folder", "leave ids= out")
        return [FileInput(split_name(next(iter(paths.values())).name)[0], paths)]
    if any(_is_one(path) for path in paths.values()):
        raise SegbenchError(
            "; ".join(f"{name}: {path} is a {'file' if _is_one(path) else 'folder'}" for name, path in paths.items()),
            "a file for every modality, or a folder for every modality",
            "correct input=",
        )
    for path in paths.values():
        if output.resolve().is_relative_to(path.resolve()):
            raise SegbenchError(
                f"output={output} lies inside input={path}",
                "a folder outside it, or the next run would read predictions as images",
                "change output=",
            )
    found = {name: _listed(path, tell) for name, path in paths.items()}
    stems = _stems(found, None if ids is None else read_list(Path(ids), "ids"), paths)
    return [FileInput(stem, {name: files[stem] for name, files in found.items()}) for stem in stems]


def split_inputs(source: Source) -> list[Input]:
    """The images of a split, whose ids name the outputs."""
    return [SplitInput(name, source, (index,)) for index, name in enumerate(source.ids)]


def _by_modality(given: str | Mapping[str, str], spec: DatasetSpec) -> dict[str, Path]:
    wanted = tuple(spec.modalities)
    example = "'input={" + ",".join(f"{name}:DIR" for name in wanted) + "}'"
    if isinstance(given, Mapping):
        if set(given) != set(wanted):
            missing, unknown = set(wanted) - set(given), set(given) - set(wanted)
            wrong = [f"lacks {', '.join(sorted(missing))}"] * bool(missing)
            wrong += [f"names {', '.join(sorted(unknown))}"] * bool(unknown)
            raise SegbenchError(
                f"input= {' and '.join(wrong)}",
                f"the modalities of {spec.name}: {', '.join(wanted)}",
                f"give {example}",
            )
        return {name: Path(given[name]) for name in wanted}
    path = Path(given)
    if len(wanted) == 1:
        return {wanted[0]: path}
    folders = {name: path / name for name in wanted}
    lacking = [name for name, folder in folders.items() if not folder.is_dir()]
    if lacking:
        raise SegbenchError(
            f"input={given} for a run on {spec.name} with modalities {', '.join(wanted)}; no folder "
            f"{', '.join(lacking)} in it",
            "a file or folder of each modality, matched by the files' stems",
            f"give {example}, or a folder with the folders {', '.join(wanted)}",
        )
    return folders


def _is_one(path: Path) -> bool:
    return not path.is_dir() or (is_zarr(path) and not fields_of(path))


def _check_there(path: Path) -> None:
    if path.exists():
        return
    near = sorted(p.name for p in path.parent.iterdir())[:6] if path.parent.is_dir() else []
    beside = f"; beside it: {', '.join(near)}" if near else ""
    raise SegbenchError(f"no file {path}{beside}", f"{KINDS}, or a folder of them", "set input= to where it is")


def _listed(folder: Path, tell: Callable[[str], None]) -> dict[str, Path]:
    """The images of a folder and its subfolders, by path without suffix."""
    listing = list_images(folder, arrays=True)
    for sentence in listing.sentences():
        tell(sentence)
    if not listing.images:
        raise SegbenchError(f"no image in {folder}", KINDS, "set input= to the folder that holds the images")
    stems = [split_name(name)[0] for name in listing.images]
    counts = Counter(stems)
    twice = [name for name, stem in zip(listing.images, stems, strict=True) if counts[stem] > 1]
    if twice:
        raise SegbenchError(
            f"{folder} holds files of one stem: {', '.join(twice[:6])}",
            "a distinct stem for each image, since it names the output",
            "rename some, or put them into separate folders",
        )
    return {stem: folder / name for name, stem in zip(listing.images, stems, strict=True)}


def _stems(
    found: Mapping[str, Mapping[str, Path]], wanted: Sequence[str] | None, paths: Mapping[str, Path]
) -> list[str]:
    """The stems that every modality has: all of them, or those wanted in their order."""
    folders = ", ".join(map(str, paths.values()))
    anywhere = set().union(*found.values())
    stems = sorted(anywhere) if wanted is None else list(wanted)
    missing = [stem for stem in stems if stem not in anywhere]
    if missing:
        raise SegbenchError(
            f"{len(missing)} of {len(stems)} ids have no file in {folders}, first {', '.join(missing[:4])}",
            "a file for every id",
            "correct ids= or input=",
        )
    lacking = {stem: [name for name, files in found.items() if stem not in files] for stem in stems}
    alone = [f"{stem} (no {', '.join(names)})" for stem, names in lacking.items() if names]
    if alone:
        raise SegbenchError(
            f"{len(alone)} of {len(stems)} images lack a modality, first {', '.join(alone[:4])}, in {folders}",
            "a file of the same stem for every modality",
            "add what is missing, or name the images to take with ids=FILE",
        )
    return stems

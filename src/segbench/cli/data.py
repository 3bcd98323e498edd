"""Download data sets and check them.

`segbench data prepare NAME [root=DIR] [parts=A,B] [mirror=URL]`,
`segbench data check NAME [root=DIR] [limit=N] [any key of conf/data/NAME.yaml]` and
`segbench data import FILE|DIR output=DIR [masks=objects|classes]`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.cli.arguments import PATHS, pairs, unquoted
from segbench.config.hydra_errors import near
from segbench.errors import SegbenchError, as_typed, say

if TYPE_CHECKING:
    from segbench.data.raw import DataSet
    from segbench.runtime.console import Console

_Progress = Callable[[str, int, int | None], None]

_PREPARE = """\
segbench data prepare NAME [root=DIR] [parts=A,B] [mirror=URL]

Downloads, checks and unpacks a data set. Interrupted downloads resume; existing files are kept.

  root=DIR    target folder; default: the root of its config, or data/NAME
  parts=A,B   only these parts; default: all that are not in brackets below
  mirror=URL  download from there

"""
_CHECK = """\
segbench data check NAME [root=DIR] [limit=N] [KEY=VALUE ...] [--config-dir DIR]

Reads every file and counts pixels, sizes and classes; exit code 1 on any fault.

  limit=N           only N images of each split
  KEY=VALUE         any key of the data set's config; segbench data check NAME --help lists them
  --config-dir DIR  your own data configs

"""


_IMPORT = """\
segbench data import FILE|DIR output=DIR [masks=objects|classes]

Writes masks from annotations: a COCO JSON file, or a folder of LabelMe's JSON files or of Cellpose's _seg.npy.

  output=DIR     folder of the masks, one PNG per image
  masks=objects  each area has its own value from 1 (the default), for experiment=image_objects
  masks=classes  each label has a value from 1; what no area covers is 0

"""


def main() -> None:
    """The entry point; sys.argv holds the action, the data set and key=value pairs."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & {*arguments}:
        say(_help([argument for argument in arguments if argument not in ("-h", "--help")]), end="")
        return
    try:
        raise SystemExit(run(arguments))
    except KeyboardInterrupt:
        say("\nstopped; the same command continues from here", file=sys.stderr)
        raise SystemExit(130) from None


def run(arguments: list[str]) -> int:
    """Do what the arguments ask for.

    Returns:
        the exit code: 1 if `check` finds a fault.

    Raises:
        SegbenchError: anything wrong with the arguments, the network or the data set's folder.
    """
    arguments, directories = _without_config_dir(arguments)
    action = arguments[0]
    names, given = pairs(arguments[1:], quotes=True)
    if action not in ("prepare", "check", "import"):
        meant = near(action, ["prepare", "check", "import"])
        to_do = f"did you mean segbench data {meant}?" if meant else "segbench data --help"
        raise SegbenchError(f"segbench data {action}", "prepare, check or import", to_do)
    if len(names) != 1:
        found = " ".join(names) or ("no file" if action == "import" else "no data set")
        wanted = "one file or folder of annotations" if action == "import" else "one data set's name"
        raise SegbenchError(f"segbench data {action}: {found}", wanted, "segbench data --help")
    if action == "import":
        return _import(names[0], given)
    return (_prepare if action == "prepare" else _check)(names[0], given, directories)


def _help(arguments: list[str]) -> str:
    arguments, directories = _without_config_dir(arguments)
    if arguments[:1] == ["prepare"]:
        return f"usage: {_PREPARE}{_offer()}"
    if arguments[:1] == ["import"]:
        return f"usage: {_IMPORT}"
    if arguments[:1] != ["check"]:
        return f"usage: {_PREPARE}usage: {_CHECK}usage: {_IMPORT}{_offer()}"
    if not (names := [argument for argument in arguments[1:] if "=" not in argument]):
        return f"usage: {_CHECK}data sets: {', '.join(_known(directories))}\n"
    config = _config(names[0], directories)
    return f"usage: {_CHECK}keys of {names[0]}:\n" + "".join(f"  {key}={config[key]}\n" for key in _keys(config))


def _keys(config: dict[str, Any]) -> list[str]:
    from segbench.config.packaged import conf_root, read_yaml

    loader = read_yaml(conf_root() / "data" / "_loader.yaml")
    return [key for key in config if key != "_target_" and key not in loader]


def _known(directories: list[Path]) -> list[str]:
    from segbench.config.installed import roots

    found = {path.stem for root in (*directories, *roots()) for path in (root / "data").glob("*.yaml")}
    return sorted(name for name in found if not name.startswith("_"))


def _offer() -> str:
    from segbench.data.prepare.recipes import PARTS

    lines = ["data sets that prepare knows, with their parts (in brackets: on request only):"]
    for name, parts in PARTS.items():
        listed = ", ".join(key if part.default else f"[{key}]" for key, part in parts.items())
        lines.append(f"  {name:<14} {listed}")
    return "\n".join(lines) + "\n"


def _without_config_dir(arguments: list[str]) -> tuple[list[str], list[Path]]:
    if "--config-dir" not in arguments:
        return arguments, []
    at = arguments.index("--config-dir")
    return arguments[:at] + arguments[at + 2 :], [Path(name) for name in arguments[at + 1 : at + 2]]


def _config(name: str, directories: list[Path]) -> dict[str, Any]:
    """The data set's own keys, as its config file and those it builds on give them.

    Raises:
        SegbenchError: there is no such file.
    """
    from segbench.config.installed import roots
    from segbench.config.packaged import read_yaml

    found = next(
        (path for root in [*directories, *reversed(roots())] if (path := root / "data" / f"{name}.yaml").is_file()),
        None,
    )
    if found is None:
        known = _known(directories)
        meant = near(name, known)
        action = f"did you mean {meant}?" if meant else "segbench list data"
        raise SegbenchError(f"no data set {name}", f"one of {', '.join(known)}", action)
    own = dict(read_yaml(found))
    config: dict[str, Any] = {}
    for base in own.pop("defaults", []):
        # A mapping overrides another group.
        own_base = isinstance(base, str) and base not in ("_self_", "_loader")
        config |= _config(base, directories) if own_base else {}
    return config | own


def _prepare(name: str, given: dict[str, str], directories: list[Path]) -> int:
    from segbench.data.prepare.downloads import Listener
    from segbench.data.prepare.prepare import prepare
    from segbench.data.prepare.recipes import PARTS

    wrong = sorted(set(given) - {"root", "parts", "mirror"})
    if wrong:
        raise SegbenchError(f"{wrong[0]}={given[wrong[0]]}", "root=, parts= or mirror=", "segbench data --help")
    root = unquoted(given["root"]) if "root" in given else None
    if root is None:
        # A recipe may serve several data sets, with no config of its name.
        root = str(_config(name, directories).get("root", f"data/{name}")) if name not in PARTS else f"data/{name}"
    parts = [part for part in given.get("parts", "").split(",") if part]
    with _progress() as (console, progress):
        listener = Listener(say=lambda text: console.print(text), progress=progress)
        prepare(name, Path(root), parts, given.get("mirror"), listener)
    return 0


def _import(source: str, given: dict[str, str]) -> int:
    from segbench.data.prepare.annotations import VOID_OF, import_masks

    wrong = sorted(set(given) - {"output", "masks"})
    if wrong or "output" not in given:
        found = f"{wrong[0]}={given[wrong[0]]}" if wrong else "no output="
        raise SegbenchError(found, "output= and masks=", "segbench data import --help")
    output, kind = Path(unquoted(given["output"])), given.get("masks", "objects")
    done = import_masks(Path(source), output, kind)
    say(f"{done.masks} masks of {done.objects} objects ({', '.join(done.classes)}) in {output}")
    for what, count in done.left_out.items():
        say(f"not used: {count} {what}")
    void = f" data.ignore_index={VOID_OF[kind]}" if done.crowds else ""
    if done.crowds:
        say(f"{done.crowds} crowds have the value {VOID_OF[kind]}")
    there = f"data.images=FOLDER {as_typed('data.masks', output)}{void}"
    if kind == "objects":
        say(f"to train: segbench train experiment=image_objects {there}")
    else:
        named = ", ".join(f"{name}: {value}" for name, value in {"background": 0, **done.classes}.items())
        say(f"to train: segbench train experiment=image_folder {there} {as_typed('data.classes', f'{{{named}}}')}")
    return 0


def _check(name: str, given: dict[str, str], directories: list[Path]) -> int:
    import yaml

    from segbench.cli.data_report import show
    from segbench.config.record import Data
    from segbench.data.prepare.check import check
    from segbench.experiment.build import build_dataset

    config = _config(name, directories)
    limit = given.pop("limit", None)
    if limit is not None and not (limit.isdigit() and int(limit) > 0):
        raise SegbenchError(f"limit={limit}", "a number of images per split", "correct limit=, or leave it out")
    for key, value in given.items():
        key = key.removeprefix("data.")
        if key not in config:
            known = [*_keys(config), "limit"]
            meant = near(key, known)
            action = f"did you mean {meant}={value}?" if meant else f"segbench data check {name} --help"
            raise SegbenchError(f"{key}={value}", f"a key of {name}: {', '.join(known)}", action)
        is_path = f"data.{key}" in PATHS and value not in ("", "null")
        config[key] = unquoted(value) if is_path else yaml.safe_load(value)
    missing = [key for key, value in config.items() if value == "???"]
    if missing:
        raise SegbenchError(
            f"segbench data check {name} without {' and '.join(missing)}",
            f"a value for {' and '.join(missing)}",
            f"segbench data check {name} {' '.join(f'data.{key}=...' for key in missing)}",
        )
    with _logged():
        dataset = build_dataset(Data.model_validate(config), None)
        _say_augmentation(name, dataset)
    root = config.get("root")
    with _progress() as (console, progress):
        report = check(dataset, Path(root) if root else None, int(limit) if limit else None, progress)
    show(report, console, len(getattr(dataset, "notes", ())))
    return 1 if report.faults else 0


def _say_augmentation(name: str, dataset: DataSet) -> None:
    from segbench.data.glance import glance

    source = dataset.split("train")
    if source is None or len(source) == 0 or name not in ("image_folder", "image_objects"):
        return
    chosen, why = glance(source, next(iter(dataset.spec.heads))).augmentation
    say(f"augment=auto is {chosen}, since {why}")


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Print what a data set logs while it is built."""
    from segbench.runtime.log import Printable

    logger, printing = logging.getLogger("segbench.data"), logging.StreamHandler(sys.stdout)
    printing.setFormatter(Printable())
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(printing)
    try:
        yield
    finally:
        logger.removeHandler(printing)
        logger.setLevel(level)


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Console, _Progress]]:
    """A console and, on a terminal, a progress bar for each task."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from segbench.runtime.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    named, numbered = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[count]}")
    columns = named, BarColumn(), numbered, TimeRemainingColumn()
    tasks: dict[str, Any] = {}

    def progress(what: str, done: int, total: int | None) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total, count="")
        # Files count in bytes, images in tens of thousands at most.
        unit, each = (" MB", 10**6) if (total or done) > 10**6 else ("", 1)
        count = f"{done / each:.0f}" + ("" if total is None else f" of {total / each:.0f}") + unit
        bars.update(tasks[what], completed=done, total=total, count=count)

    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield console, progress

"""`segbench init NAME`: a small project of your own that runs at once."""

from __future__ import annotations

import importlib.util
import keyword
import shutil
from pathlib import Path

from segbench.cli.flags import Parser
from segbench.errors import SegbenchError, as_typed, say
from segbench.runtime.files import partial_name, write_whole

TEMPLATE = Path(__file__).parent / "starter"
"""The project as it is written, under the name `starter`."""


def main() -> None:
    """The entry point; sys.argv holds the name."""
    parser = Parser("segbench init", description="Write a project: data set, network, loss, callback, configs, a test.")
    parser.add_argument("name", type=Path, metavar="NAME", help="its folder, whose name is that of the Python package")
    folder: Path = parser.parse_args().name
    written = write_project(folder)
    say(f"{len(written)} files in {folder}. Now:")
    say(f"  cd {as_typed(folder)}")
    say("  export PYTHONPATH=.")
    say(f"  segbench train --config-dir {folder.name}/conf experiment={folder.name}")


def write_project(folder: Path) -> list[Path]:
    """Write the project; returns its files.

    Args:
        folder: new or empty; its name becomes the package's.

    Raises:
        SegbenchError: the name cannot be a new package's, or the folder has content or cannot be written.
    """
    name = folder.name
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        raise SegbenchError(
            f"segbench init {folder}",
            "a Python package's name: letters, digits, _",
            "choose another name",
        )
    if importlib.util.find_spec(name) is not None and not _is_namespace(name):
        raise SegbenchError(
            f"segbench init {folder}: Python finds a module {name} already", "a new name", "choose another name"
        )
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SegbenchError(f"{folder} exists and is not empty", "a new or an empty folder", "choose another name")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_name(folder)
        try:
            for source in sorted(TEMPLATE.rglob("*")):
                if source.is_file() and "__pycache__" not in source.parts:
                    target = partial / str(source.relative_to(TEMPLATE)).replace("starter", name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_whole(target, source.read_text().replace("starter", name))
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise SegbenchError(
            f"{folder} cannot be written: {error.strerror or error}",
            "a folder in a place that this user may write to",
            "choose another NAME, or free the disk",
        ) from error
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _is_namespace(name: str) -> bool:
    # An empty folder of that name in the working directory.
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is None

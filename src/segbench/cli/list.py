"""What each axis of the config offers: `segbench list [AXIS ...] [--config-dir DIR]`."""

from __future__ import annotations

from pathlib import Path

from segbench.cli.flags import Parser
from segbench.config.hydra_errors import near
from segbench.config.installed import roots
from segbench.errors import SegbenchError, say

AXES = ("experiment", "data", "model", "augment", "loss", "optimizer", "scheduler", "decoding", "metrics")
FURTHER = ("trainer", "callbacks", "logger", "debug")


def options(axis: str, folders: list[Path]) -> dict[str, list[str]]:
    """The options of an axis and the comment that heads each file, one string a line.

    Args:
        axis: a config group.
        folders: config directories, the one whose files win last.
    """
    found: dict[str, list[str]] = {}
    for root in folders:
        for path in sorted((root / axis).glob("*.yaml")):
            if not path.stem.startswith("_"):
                found[path.stem] = _header(path)
    return found


def _header(path: Path) -> list[str]:
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("#").strip()
        if text and not text.startswith("@package"):
            lines.append(text)
    return lines


def main() -> None:
    """The entry point; sys.argv holds axes."""
    parser = Parser("segbench list", description="What each config axis offers.")
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=", ".join(AXES + FURTHER))
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="your own configs, listed too")
    given = parser.parse_args()
    for axis in given.axes:
        if axis not in AXES + FURTHER:
            meant = near(axis, AXES + FURTHER)
            action = f"did you mean segbench list {meant}?" if meant else "segbench list"
            raise SegbenchError(f"unknown axis {axis}", f"one of {', '.join(AXES + FURTHER)}", action)
    if given.config_dir is not None and not given.config_dir.is_dir():
        raise SegbenchError(f"no folder {given.config_dir}", "a config directory", "correct --config-dir")
    for axis in given.axes or AXES + FURTHER:
        say(f"{axis}=")
        for name, header in options(axis, roots(given.config_dir)).items():
            # An axis given by name is shown with full headers.
            say(f"  {name:<24} {header[0] if header else ''}".rstrip())
            for line in header[1:] if given.axes else []:
                say(f"  {'':<24} {line}")
        say()

"""Configs of installed packages: each may name a config directory under the entry point `segbench.configs`.

Nothing of such a package is imported to find it. Its files come after the user's own and the packaged ones of a name.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.packaged import conf_root, read_yaml
from segbench.errors import say

if TYPE_CHECKING:
    from omegaconf import DictConfig

GROUP = "segbench.configs"
FROM_PACKAGES = "from_packages"
"""A key at the top of a configuration: the package and its version that gave an option; absent where there is none."""
_PROVIDER = f"{GROUP}: "


@dataclass(frozen=True)
class Installed:
    """A config directory of an installed package.

    Attributes:
        package: its name and version.
        path: the directory.
    """

    package: str
    path: Path

    @property
    def provider(self) -> str:
        """What Hydra calls it."""
        return f"{_PROVIDER}{self.package}"


def installed() -> tuple[Installed, ...]:
    """Those that are there, by name; a directory that is missing and files that are hidden are told once."""
    return _installed(tuple(sys.path))


@cache
def _installed(path: tuple[str, ...]) -> tuple[Installed, ...]:
    found: list[Installed] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.name
        if (folder := _folder(point)) is None:
            _tell(f"{package}: its configs {point.value} are not used, for there is no such folder")
        elif all(each.path != folder for each in found):
            found.append(Installed(package, folder))
    for place, each in enumerate(found):
        before = [("segbench", conf_root()), *((other.package, other.path) for other in found[:place])]
        for file in sorted(each.path.rglob("*.yaml")):
            name = file.relative_to(each.path)
            if owner := next((owner for owner, root in before if (root / name).is_file()), None):
                _tell(f"{each.package}: {name} is not used, for {owner} has a config of that name")
    return tuple(found)


def _folder(point: EntryPoint) -> Path | None:
    top, *inside = point.module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    folders = (Path(place, *inside) for place in (spec.submodule_search_locations or [] if spec is not None else []))
    return next((folder for folder in folders if folder.is_dir()), None)


def _tell(sentence: str) -> None:
    say(sentence, file=sys.stderr)


def roots(own: Path | None = None) -> list[Path]:
    """All config directories, the one whose files win last.

    Args:
        own: the user's.
    """
    return [*(each.path for each in reversed(installed())), conf_root(), *([] if own is None else [own])]


def from_packages(hydra: DictConfig) -> dict[str, str]:
    """The packages and versions out of which options were picked, by option.

    Args:
        hydra: Hydra's own part of a composed config.
    """
    sources = [(str(each.provider), Path(each.path)) for each in hydra.runtime.config_sources if each.schema == "file"]
    if not any(provider.startswith(_PROVIDER) for provider, _ in sources):
        return {}
    found: dict[str, str] = {}
    left = [f"{group}/{name}" for group, chosen in hydra.runtime.choices.items() for name in _names(chosen)]
    looked = set[str]()
    while left:
        if (option := left.pop()) in looked:
            continue
        looked.add(option)
        for provider, root in sources:
            if (file := root / f"{option}.yaml").is_file():
                if provider.startswith(_PROVIDER):
                    found[option] = provider.removeprefix(_PROVIDER)
                left += _bases(option, read_yaml(file))
                break
    return dict(sorted(found.items()))


def _names(chosen: Any) -> list[str]:
    return [str(each).partition("@")[0] for each in (chosen if isinstance(chosen, (list, tuple)) else [chosen])]


def _bases(option: str, tree: Any) -> Iterator[str]:
    """What a file builds on within its group; picks of other groups are Hydra's choices."""
    defaults = tree.get("defaults") or [] if isinstance(tree, Mapping) else []
    group = option.rpartition("/")[0].partition("@")[0]
    for each in defaults:
        if isinstance(each, str) and each != "_self_":
            name = each.partition("@")[0]
            yield name.lstrip("/") if name.startswith("/") else f"{group}/{name}"

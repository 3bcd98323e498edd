"""Where the packaged configs are, and reading them. Imports nothing heavy."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def conf_root() -> Path:
    """The folder of the packaged configs: `segbench/conf` in a wheel, `conf` at the top of a clone."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parents[1] / "conf"


def read_yaml(path: Path) -> Any:
    """Read a YAML file with the C loader, seven times faster than the plain one."""
    return yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))

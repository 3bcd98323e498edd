"""What may make runs of one configuration differ."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from segbench.runtime.threads import allowed_cores

_PACKAGES = ("torch", "lightning", "hydra-core", "torchmetrics", "albumentations", "numpy", "numba")


def provenance() -> dict[str, Any]:
    """Command, code, versions, machine and time."""
    return {
        "command": _command(),
        "git": _git(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("segbench", *_PACKAGES)},
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": len(allowed_cores()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _command() -> str:
    program = Path(sys.argv[0])
    # However it was started, report the subcommand of that name.
    package = Path(__file__).absolute().parents[1]
    own = program.parent.absolute() in (package, package / "cli")
    return shlex.join([*(("segbench", program.stem) if own else (program.name,)), *sys.argv[1:]])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git() -> dict[str, Any] | None:
    def ask(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *arguments], capture_output=True, text=True, timeout=5, cwd=Path(__file__).parent, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(ask("status", "--porcelain"))}

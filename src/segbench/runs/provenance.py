"""What may make runs of one configuration differ."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from segbench.config.packaged import conf_root
from segbench.runtime.threads import allowed_cores

_PACKAGES = ("torch", "lightning", "hydra-core", "torchmetrics", "albumentations", "numpy", "numba")

_LIBRARIES = {"cuda": "CUDA", "cudnn": "cuDNN"}
_SWITCHES = {"tf32": "TF32", "benchmark": "cudnn.benchmark", "deterministic": "deterministic"}
COMPUTING = (*_LIBRARIES, *_SWITCHES)
"""What `segbench.runtime.hardware.machine` records of a GPU beside its name."""


def provenance(settings: Mapping[str, Any] | None = None, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Command, code, versions, machine and time.

    Args:
        settings: the configuration by dotted key; classes that it names outside this package and its own libraries are
            recorded with a digest of their file, and the version of their package where it has one.
        packages: further ones that the run's network is built by.
    """
    own = _own_code(settings or {})
    named = dict.fromkeys((*packages, *(target.partition(".")[0] for target in own)))
    versions = {name: _version(name) for name in ("segbench", *_PACKAGES)}
    return {
        "command": _command(),
        "git": _git(),
        "own_code": own,
        "python": platform.python_version(),
        "versions": versions | {name: found for name in named if (found := _version(name)) is not None},
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": len(allowed_cores()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def hardware_of(recorded: Mapping[str, Any]) -> str:
    """The processor, or the GPU with its memory and libraries, of a recorded provenance; older ones tell less."""
    if (device := recorded.get("device", "CPU")) == "CPU":
        return f"{recorded.get('processor')}, {recorded.get('cpus')} cores"
    memory = f"{recorded['device_memory_gib']:g} GiB" if "device_memory_gib" in recorded else None
    libraries = [f"{name} {recorded[key]}" for key, name in _LIBRARIES.items() if recorded.get(key)]
    return ", ".join([str(device), *([memory] if memory else []), *libraries])


def computing_of(recorded: Mapping[str, Any]) -> str:
    """How a run computed, of a recorded provenance: precision, and on a GPU what else decides its last bits."""
    told = [str(recorded["precision"])] if "precision" in recorded else []
    if recorded.get("device", "CPU") != "CPU":
        told += [f"{name} {'on' if recorded[key] else 'off'}" for key, name in _SWITCHES.items() if key in recorded]
    elif recorded.get("deterministic"):
        told.append("deterministic on")
    return ", ".join(told)


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


def _own_code(settings: Mapping[str, Any]) -> dict[str, str]:
    names = {str(value) for key, value in settings.items() if key.rpartition(".")[2] == "_target_"}
    known = ("segbench", *(package for package in _PACKAGES if package != "hydra-core"))
    return {name: _digest(name) for name in sorted(names) if name.partition(".")[0] not in known}


def _digest(target: str) -> str:
    module = target
    while module := module.rpartition(".")[0]:
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            continue
        if found is not None and found.origin is not None and Path(found.origin).is_file():
            return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()
    return "no file"


def _git() -> dict[str, Any] | None:
    """The commit of this code; None for an installed wheel as it was built.

    Code whose commit cannot be found out, and a wheel that was changed, count as changed.
    """
    package = Path(__file__).resolve().parents[1]
    clone = (conf_root().parent / "pyproject.toml").is_file()
    if not clone:
        return {"commit": "a wheel", "dirty": True} if _was_changed(package) else None

    def ask(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *arguments], capture_output=True, text=True, timeout=5, cwd=package, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    # A source archive may be unpacked below somebody's own repository, whose commit is not this code's.
    if not ask("ls-files", "--error-unmatch", "errors.py"):
        return {"commit": "unknown", "dirty": True}
    # Results and ledger rows beside the code do not change it.
    changed = ask("status", "--porcelain", "--", str(package.parent), str(conf_root()))
    return {"commit": ask("rev-parse", "HEAD") or "unknown", "dirty": changed != ""}


def _was_changed(package: Path) -> bool:
    """Whether an installed file is not the one that was packed."""
    try:
        files = distribution("segbench").files or []
    except PackageNotFoundError:
        return True
    packed = [file for file in files if file.hash is not None and file.suffix in (".py", ".yaml")]
    return not packed or any(_hash(Path(str(file.locate()))) != file.hash.value for file in packed if file.hash)


def _hash(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

"""What this machine offers a training, and what is wrong with it: `segbench doctor [--json]`."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segbench.cli.flags import Parser
from segbench.config.explain import of_torchvision
from segbench.errors import SegbenchError, say
from segbench.runtime.workers import LOW_SHARED_MEMORY, shared_memory

_PACKAGES = (
    *("torch", "lightning", "hydra-core", "torchmetrics", "albumentations", "numpy", "numba", "opencv-python-headless"),
    *("wandb", "optuna", "submitit", "onnxruntime", "zarr", "h5py", "torchvision", "timm"),
    *("segmentation-models-pytorch", "transformers", "monai"),
)
_LOW_DISK = 5 * 2**30


def look() -> tuple[dict[str, Any], list[str]]:
    """The machine, nested, and a sentence on each thing that will get in the way."""
    problems: list[str] = []
    found: dict[str, Any] = {
        "versions": _versions(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    for part in (_import, _devices, _memory, _threads, _disk, _wandb):
        seen, wrong = part()
        found |= seen
        problems += wrong
    return found, problems


def _versions() -> dict[str, str | None]:
    from segbench import __version__

    versions: dict[str, str | None] = {"segbench": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _import() -> tuple[dict[str, Any], list[str]]:
    """Packages that are there and cannot be imported: one that is broken breaks those that use it."""
    broken = {}
    for name in ("torch", "torchvision", "torchmetrics", "lightning", "albumentations", "cv2"):
        if importlib.util.find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except Exception as error:
            broken[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    # What fails for the same reason is told once.
    first = {why: name for name, why in reversed(broken.items())}
    problems = [f"{name} is installed and cannot be imported ({why})" for why, name in first.items()]
    if "torchvision" in broken:
        told = of_torchvision(RuntimeError(broken["torchvision"]))
        problems = [f"{told.found}: {told.action}", *(each for each in problems if not each.startswith("torchvision"))]
    return {"broken": broken}, problems


def _devices() -> tuple[dict[str, Any], list[str]]:
    try:
        import torch
    except Exception:
        # However it is broken; another check says so.
        return {"devices": []}, []
    devices = [
        {
            "name": torch.cuda.get_device_name(number),
            "memory_gib": round(torch.cuda.get_device_properties(number).total_memory / 2**30, 1),
            "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        }
        for number in range(torch.cuda.device_count())
    ]
    problems = []
    if not devices and Path("/dev/nvidia0").exists():
        problems.append(
            f"a GPU is here that torch does not see (torch {torch.__version__}, CUDA {torch.version.cuda}): install a "
            "CUDA build of torch that the driver supports"
        )
    return {"devices": devices, "cuda": torch.version.cuda}, problems


def _memory() -> tuple[dict[str, Any], list[str]]:
    pages = os.sysconf("SC_PAGE_SIZE")
    memory = {"memory_gib": round(os.sysconf("SC_PHYS_PAGES") * pages / 2**30, 1)}
    memory["memory_free_gib"] = round(os.sysconf("SC_AVPHYS_PAGES") * pages / 2**30, 1)
    return memory, []


def _threads() -> tuple[dict[str, Any], list[str]]:
    from segbench.runtime.threads import allowed_cores, cpu_quota, settle_threads

    cores, quota = len(allowed_cores()), cpu_quota()
    count, sentence = settle_threads("auto", 1)
    given = os.environ.get("OMP_NUM_THREADS")
    problems = []
    if given and given.isdecimal() and int(given) > cores:
        problems.append(f"OMP_NUM_THREADS={given}, more than the {cores} cores here: unset it")
    return {"cores": cores, "cores_allowed_by_cgroup": quota, "threads": count, "threads_from": sentence}, problems


def _disk() -> tuple[dict[str, Any], list[str]]:
    outputs = Path(os.environ.get("SEGBENCH_OUTPUTS", "outputs")).absolute()
    where = next(path for path in (outputs, *outputs.parents) if path.is_dir())
    free = shutil.disk_usage(where).free
    found: dict[str, Any] = {"outputs": str(outputs), "disk_free_gib": round(free / 2**30, 1)}
    problems = []
    if free < _LOW_DISK:
        problems.append(f"{found['disk_free_gib']} GiB free for {outputs}: a run keeps three checkpoints")
    if not os.access(where, os.W_OK):
        problems.append(f"{where} cannot be written: set SEGBENCH_OUTPUTS=FOLDER")
    if (shared := shared_memory()) is not None:
        free_shared = shared[1]
        found["shared_memory_gib"] = round(free_shared / 2**30, 2)
        if free_shared < LOW_SHARED_MEMORY:
            problems.append(
                f"{found['shared_memory_gib']} GiB of shared memory (/dev/shm), through which data.num_workers pass "
                "their batches: data.num_workers=0, or docker run --shm-size=8g"
            )
    return found, problems


def _wandb() -> tuple[dict[str, Any], list[str]]:
    from segbench.tracking.access import access

    try:
        found = access()
    except SegbenchError as error:
        return {"wandb": error.found}, [f"{error.found}: {error.expected}"]
    return {"wandb": f"{found.mode}: {found.why}" if found.why else found.mode}, []


def main() -> None:
    """The entry point; sys.argv holds flags. The exit code is 1 if something is wrong."""
    parser = Parser("segbench doctor", description="What this machine offers a training, and what is wrong with it.")
    parser.add_argument("--json", action="store_true", help="as JSON")
    given = parser.parse_args()
    found, problems = look()
    if given.json:
        say(json.dumps(found | {"problems": problems}, indent=2))
    else:
        _show(found, problems, print)
    if problems:
        sys.exit(1)


def _show(found: dict[str, Any], problems: list[str], say: Callable[[str], None]) -> None:
    versions = {name: version for name, version in found["versions"].items() if version}
    missing = [name for name, version in found["versions"].items() if not version]
    say("versions    " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    say(f"            Python {found['python']}; not installed: {', '.join(missing) or 'nothing'}")
    names = [f"{each['name']}, {each['memory_gib']} GiB" for each in found["devices"]]
    say(f"devices     {'; '.join(names) or 'CPU'} (CUDA of torch: {found.get('cuda') or 'none'})")
    say(f"memory      {found['memory_free_gib']} of {found['memory_gib']} GiB free")
    say(f"cores       {found['cores']}; {found['threads_from']}")
    shared = f"; {found['shared_memory_gib']} GiB of shared memory" if "shared_memory_gib" in found else ""
    say(f"disk        {found['disk_free_gib']} GiB free for {found['outputs']}{shared}")
    say(f"W&B         {found['wandb']}")
    for problem in problems:
        say(f"problem:    {problem}")
    say("nothing is in the way" if not problems else f"{len(problems)} in all")

"""`python benchmarks/gpu.py` proves and measures segbench on the GPUs of this machine: results in benchmarks/gpu.md.

It needs torch, numpy and this checkout; pieces that need more say what they lack. Each piece takes at most eight
minutes and runs in a process of its own; a second call goes on where the first one stopped, and `--again` repeats all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Before the first handle of cuBLAS, which deterministic algorithms need it for.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "src"), str(Path(__file__).resolve().parent)]
# Of the processes that pieces start.
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], *filter(None, [os.environ.get("PYTHONPATH")])])

import torch
from gpu_pieces import PIECES, ROOT, WORK, Skipped, Unfinished

LIMIT_S = 480


def machine() -> dict[str, Any]:
    """The GPUs and the versions that a figure depends on."""
    found = torch.cuda.device_count()
    gpus = [torch.cuda.get_device_properties(number) for number in range(found)]
    return {
        "devices": [f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB" for gpu in gpus] or ["CPU"],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if found else None,  # type: ignore[no-untyped-call]
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return asked.stdout.strip() or None


def _file(name: str, tiny: bool) -> Path:
    return WORK / f"{'tiny-' if tiny else ''}{name}.jsonl"


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    # A line of a piece that was killed may be cut off.
    lines = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines


def run_piece(name: str, tiny: bool) -> str:
    """Run a piece in this process and write its figures down as they come.

    Returns:
        how it ended: `done`, `unfinished`, or why it was skipped or failed.
    """
    path = _file(name, tiny)
    path.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with path.open("w") as file:

        def write(row: Mapping[str, Any]) -> None:
            file.write(json.dumps(row, default=str) + "\n")
            file.flush()

        def say(
            figure: str, value: Any = None, unit: str = "", goal: str = "", met: bool | None = None, failed: str = ""
        ) -> None:
            row = {"figure": figure, "value": value, "unit": unit, "goal": goal, "met": met, "failed": failed}
            write(row)
            print(f"  {figure}: {shown(row)}", flush=True)

        write({"machine": machine()})
        piece = PIECES[name]
        ended = "done"
        try:
            if (reason := piece.lacks()) is not None:
                raise Skipped(reason)
            piece.run(say, tiny)
        except Skipped as skipped:
            ended = f"skipped: {skipped}"
        except Unfinished as unfinished:
            ended = f"unfinished: {unfinished}"
        except Exception as error:
            ended = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        write({"ended": ended, "seconds": round(time.monotonic() - began, 1)})
    return ended


def ended(name: str, tiny: bool) -> str | None:
    """How a piece ended on a machine like this one; None if it has to run."""
    lines = _lines(_file(name, tiny))
    if not lines or lines[0].get("machine", {}).get("devices") != machine()["devices"]:
        return None
    how = lines[-1].get("ended")
    # A skipped piece is tried again: what it lacked may be there now.
    return None if how is None or how.startswith(("skipped", "unfinished")) else str(how)


def shown(row: Mapping[str, Any]) -> str:
    """A figure's value, goal and verdict."""
    if row["failed"]:
        return f"FAILED, {row['failed']}"
    value = f"{row['value']:.4g}" if isinstance(row["value"], float) else "" if row["value"] is None else row["value"]
    verdict = "" if row["met"] is None else ", met" if row["met"] else ", MISSED"
    goal = f" (goal {row['goal']}{verdict})" if row["goal"] else verdict
    return f"{value} {row['unit']}".strip() + goal


def report(tiny: bool) -> str:
    """The results so far as Markdown."""
    about = machine()
    versions = ", ".join(f"{key} {about[key]}" for key in ("torch", "cuda", "cudnn", "python", "commit") if about[key])
    lines = ["# On a GPU", "", "Written by `make gpu`; not edited by hand.", ""]
    lines += [f"{'; '.join(about['devices'])}. {versions}.", "", "| piece | figure | measured |", "| --- | --- | --- |"]
    for name in PIECES:
        rows = _lines(_file(name, tiny))
        end = next((row for row in rows if "ended" in row), None)
        how = "not run" if not rows else "cut off" if end is None else f"{end['ended']}, {end['seconds']} s"
        lines.append(f"| **{name}** | | {how} |")
        lines += [f"| | {row['figure']} | {shown(row)} |".replace("\n", " ") for row in rows if "figure" in row]
    return "\n".join(lines) + "\n"


def main(given: Sequence[str] | None = None) -> int:
    """Run the pieces that are left, or the named one. The exit code is 1 if a piece failed or missed its goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="the pieces, what they measure and how they ended")
    parser.add_argument("--piece", choices=[*PIECES], help="run this one here, again if need be")
    parser.add_argument("--again", action="store_true", help="run all pieces again")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, on a CPU too: to try the command out")
    parser.add_argument("--out", type=Path, help="folder of gpu.md; default benchmarks, with --tiny .cache/gpu")
    asked = parser.parse_args(given)
    if asked.list:
        for name, piece in PIECES.items():
            what = (piece.run.__doc__ or "").splitlines()[0]
            print(f"{name:17} {what} [{piece.lacks() or ended(name, asked.tiny) or 'to run'}]")
        return 0
    table = (asked.out or (WORK if asked.tiny else ROOT / "benchmarks")) / "gpu.md"
    names = [asked.piece] if asked.piece else [*PIECES]
    for name in names:
        if not asked.piece and not asked.again and (how := ended(name, asked.tiny)) is not None:
            print(f"{name}: {how} before; --piece {name} repeats it")
            continue
        if asked.piece:
            print(f"{name} ...", flush=True)
            print(f"{name}: {run_piece(name, asked.tiny)}", flush=True)
        elif (how := _apart(name, asked.tiny)) is not None:
            print(f"{name}: {how}", flush=True)
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(report(asked.tiny))
    if asked.out is None:
        print(f"results: {table}")
    rows = [row for name in names for row in _lines(_file(name, asked.tiny))]
    bad = [row for row in rows if row.get("failed") or row.get("met") is False or "failed" in str(row.get("ended"))]
    return int(bool(bad) and not asked.tiny)


def _apart(name: str, tiny: bool) -> str | None:
    """Run a piece in a process of its own, as one may break the device for those after it.

    Returns:
        why it was cut off; None if it told itself how it ended.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--piece", name, "--out", str(WORK / "pieces")]
    try:
        done = subprocess.run([*command, *(["--tiny"] if tiny else [])], cwd=ROOT, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        how = f"failed: not done within {LIMIT_S} s; its figures so far are kept"
    else:
        lines = _lines(_file(name, tiny))
        if lines and "ended" in lines[-1]:
            return None
        how = f"failed: its process ended with {done.returncode}"
    WORK.mkdir(parents=True, exist_ok=True)
    with _file(name, tiny).open("a") as file:
        file.write("\n" + json.dumps({"ended": how, "seconds": LIMIT_S}) + "\n")
    return how


if __name__ == "__main__":
    sys.exit(main())

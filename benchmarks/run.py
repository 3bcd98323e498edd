"""`python benchmarks/run.py [only=NAMES] [json=FILE]` measures and prints each figure beside its reference."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

import speed
from speed.timing import Benches, Row

from segbench.cli.arguments import pairs
from segbench.cli.entry import boundary
from segbench.errors import SegbenchError
from segbench.runtime.files import write_whole

LARGE = "large_"
"""Prefix of measurements that take minutes or gigabytes and run only by name."""


def benches() -> Benches:
    """Every measurement by name: `BENCHES` of each module of `speed`."""
    found: Benches = {}
    for module in sorted(pkgutil.iter_modules(speed.__path__), key=lambda entry: entry.name):
        found |= getattr(importlib.import_module(f"speed.{module.name}"), "BENCHES", {})
    return found


def usage(known: Benches) -> str:
    """The help text: how to call it, and what each measurement is of."""
    width = max(map(len, known))
    lines = [f"  {name:<{width}}  {(function.__doc__ or '').splitlines()[0]}" for name, function in known.items()]
    return (
        "usage: run.py [NAME ...] [only=NAME,NAME] [json=FILE]\n\n"
        "Measures, and prints each figure beside its reference of the same run as soon as it is known; json=FILE\n"
        f"keeps them, with machine and versions. Without a name it runs all but {LARGE}*, which take minutes or\n"
        "gigabytes.\n\n"
        "measurements:\n" + "\n".join(lines) + "\n"
    )


def line_of(row: Row) -> str:
    """A figure as text: ours, the reference, their ratio, the goal."""
    parts = [_show(row.seconds)]
    if row.reference_seconds is not None:
        parts.append(f"{row.reference} {_show(row.reference_seconds)}, ratio {row.ratio:.2f}")
    parts.append(f"{row.target}: {'met' if row.met else 'MISSED'}")
    return f"{row.name}\n    {'; '.join([*parts, *([row.note] if row.note else [])])}"


def _show(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


@boundary()
def main() -> None:
    """Run the named measurements, or all but the large ones."""
    known = benches()
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(usage(known), end="")
        return
    names, given = pairs(sys.argv[1:])
    if unknown := sorted(set(given) - {"only", "json"}):
        raise SegbenchError(f"{unknown[0]}=", "only=NAMES or json=FILE", "run.py --help")
    names = [*names, *str(given.get("only", "")).split(",")] if "only" in given else names
    for name in names:
        if name not in known:
            raise SegbenchError(f"no measurement {name!r}", f"one of {', '.join(known)}", "run.py --help")
    from segbench.runs.provenance import provenance

    about = provenance()
    record: dict[str, Any] = {"machine": about, "figures": []}
    print(f"{about['processor']}, {about['cpus']} CPUs, torch {about['versions']['torch']}", flush=True)
    for name in names or [name for name in known if not name.startswith(LARGE)]:
        for row in known[name]():
            print(line_of(row), flush=True)
            record["figures"].append({"measurement": name, "ratio": row.ratio, **dataclasses.asdict(row)})
            if "json" in given:
                write_whole(Path(given["json"]), json.dumps(record, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()

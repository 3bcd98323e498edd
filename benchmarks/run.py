"""`python benchmarks/run.py [NAME ...]` measures and prints each figure beside its reference."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

import speed
from speed.timing import Benches

LARGE = "large_"
"""Prefix of measurements that take minutes or gigabytes and run only by name."""


def benches() -> Benches:
    """Every measurement by name: `BENCHES` of each module of `speed`."""
    found: Benches = {}
    for module in sorted(pkgutil.iter_modules(speed.__path__), key=lambda entry: entry.name):
        found |= getattr(importlib.import_module(f"speed.{module.name}"), "BENCHES", {})
    return found


def _show(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def main() -> None:
    """Run the named measurements, or all but the large ones."""
    from rich.console import Console
    from rich.table import Table

    from segbench.runs.provenance import provenance

    known = benches()
    parser = argparse.ArgumentParser(
        description="Run measurements and print each figure beside its reference in the same run.",
        epilog=f"measurements: {', '.join(known)}; without a name all but {LARGE}*, which take minutes or gigabytes",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a measurement", choices=[*known, []])
    asked = parser.parse_args().names or [name for name in known if not name.startswith(LARGE)]
    about = provenance()
    table = Table(title=f"{about['processor']}, {about['cpus']} CPUs, torch {about['versions']['torch']}")
    for column in ("figure", "ours", "reference", "its time", "ratio", "target", ""):
        table.add_column(column)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=180)
    for name in asked:
        console.print(f"measuring {name} ...", style="dim")
        for row in known[name]():
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            result = ("met" if row.met else "MISSED") + (f"; {row.note}" if row.note else "")
            times = _show(row.seconds), row.reference, _show(row.reference_seconds)
            table.add_row(row.name, *times, ratio, row.target, result)
    console.print(table)


if __name__ == "__main__":
    main()

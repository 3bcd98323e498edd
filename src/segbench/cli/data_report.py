"""What `segbench data check` prints of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from segbench.data.prepare.check import Report
    from segbench.runtime.console import Console


def show(report: Report, console: Console, logged: int) -> None:
    """Print a report; `logged` notes were printed while the data set was built."""
    console.print(f"{report.spec.name}: {report.spec.protocol}", style="bold", markup=False)
    console.print(_splits(report))
    for head in report.spec.heads:
        console.print(_histogram(report, head))
    for split in report.splits.values():
        console.print(
            f"{split.name}: sha256 of the ids {split.ids_digest[:16]}, of the labels {split.labels_digest[:16]}"
        )
    for line in report.archives:
        console.print(line, markup=False)
    for note in report.notes[:10]:
        console.print(f"note: {note}", markup=False)
    for fault in report.faults[:20]:
        console.print(f"FAULT: {fault}", style="red", markup=False)
    more = len(report.faults) - 20
    if more > 0:
        console.print(f"... and {more} more", style="red")
    noted = len(report.notes) + logged
    beside = f", {noted} note{'s' * (noted != 1)} above" if noted else ""
    style = "red" if report.faults else "yellow" if noted else "green"
    console.print((f"{len(report.faults)} faults" if report.faults else "no fault") + beside, style=style)


def _splits(report: Report) -> Table:
    from rich.table import Table

    table = Table(title="splits")
    for column in (
        "split",
        "images",
        "read",
        "sizes (height x width)",
        "range",
        *(f"void, {h}" for h in report.spec.heads),
    ):
        table.add_column(column)
    for split in report.splits.values():
        common = split.sizes.most_common(2)
        sizes = ", ".join(f"{count} of {h} x {w}" for (h, w), count in common)
        if len(split.sizes) > len(common):
            sizes += f", {len(split.sizes) - len(common)} other sizes"
        ranges = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in split.channels.items())
        voids = [f"{split.void_share(h):.2%}" if split.pixels[h].sum() else "no labels" for h in report.spec.heads]
        table.add_row(split.name, str(split.listed), str(split.read), sizes, ranges, *voids)
    return table


def _histogram(report: Report, head: str) -> Table:
    from rich.table import Table

    table = Table(title=f"{head}: share of the labelled pixels, and images that show the class")
    table.add_column("class")
    labelled = [split for split in report.splits.values() if split.pixels[head].sum()]
    for split in labelled:
        table.add_column(split.name, justify="right")
        table.add_column("images", justify="right")
    spec = report.spec.heads[head]
    for index, name in enumerate(spec.class_names):
        row = []
        for split in labelled:
            total = max(int(split.pixels[head][:-1].sum()), 1)
            row += [f"{split.pixels[head][index] / total:.3%}", str(split.images_with[head][index])]
        table.add_row(name + (" (not in means)" if index in spec.excluded else ""), *row)
    return table

"""Runs a tutorial's own commands while the site is built: what a page shows is what they print and write.

A comment `<!-- printed -->` below a block of commands becomes their output, and `<!-- picture NAME: CAPTION -->` a
picture of what they left. Both are invisible where the page is read without the site.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
_PARTS = re.compile(r"^```(\w*)\n(.*?)^```\n|<!-- (printed|picture) ?(?:(\w+): )?(.*?)-->", re.DOTALL | re.MULTILINE)


def followed(text: str, beside: str) -> tuple[str, dict[str, bytes]]:
    """A page with its commands' output, and its pictures.

    Args:
        text: of the page.
        beside: the folder of its pictures, as the page names it.
    """
    pictures: dict[str, bytes] = {}
    printed = ""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()

        def replaced(part: re.Match[str]) -> str:
            nonlocal printed
            language, block, kind, name, caption = part.groups()
            if kind == "printed":
                return f"```text\n{printed}```\n"
            if kind == "picture":
                drawn, suffix = getattr(_Drawn(folder), name)()
                pictures[f"{beside}/{name}.{suffix}"] = drawn
                return f"![{caption.strip()}]({beside}/{name}.{suffix})\n\n*{caption.strip()}*"
            if language == "python" and (named := re.match(r"# (\w+\.py)\n", block)):
                (folder / named[1]).write_text(block)
            if not language:
                printed = "".join(_run(line, folder) for line in block.splitlines())
            return part[0]

        # What stands below the last comment is for the reader's own folder.
        end = text.rindex("-->") + len("-->")
        filled = _PARTS.sub(replaced, text[:end]) + text[end:]
    return filled, pictures


def _run(command: str, folder: Path) -> str:
    words = shlex.split(command, comments=True)
    start = {"segbench": [sys.executable, "-m", "segbench"], "python": [sys.executable]}[words[0]]
    cache = folder / ".cache"
    environment = os.environ | {"PYTHONPATH": str(REPO / "src"), "XDG_CACHE_HOME": str(cache), "COLUMNS": "100"}
    done = subprocess.run(
        [*start, *words[1:]], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode()
    if done.returncode:
        raise RuntimeError(f"{command}: exit code {done.returncode}\n{text}")
    return text.replace(str(cache), "~/.cache").replace(f"{folder}/", "")


class _Drawn:
    """The pictures, by name; each is drawn from what the commands left in the folder.

    Args:
        folder: where they ran.
    """

    def __init__(self, folder: Path) -> None:
        self._cells, self._run = folder / "cells", folder / "outputs" / "cells"
        self._predicted = folder / "outputs" / "predicted"

    def _dataset(self) -> Any:
        from segbench.data.image_folder import ImageFolder

        os.environ["XDG_CACHE_HOME"] = str(self._cells.parent / ".cache")
        images, masks = str(self._cells / "images"), str(self._cells / "masks")
        return ImageFolder(images, masks, classes=["background", "cell", "nucleus"])

    def pairs(self) -> tuple[bytes, str]:
        """Two training images and their labels."""
        dataset = self._dataset()
        source, head = dataset.split("train"), dataset.spec.heads["semantic"]
        read = [source.read(index) for index in (0, 1)]
        return _row(*(part for raw in read for part in (_grey(raw.images["image"]), _label(raw, head)))), "png"

    def augmented(self) -> tuple[bytes, str]:
        """The first training tiles, as `callbacks=inspect` wrote them."""
        import cv2
        import numpy as np

        tiles = [cv2.imread(str(path)) for path in sorted((self._run / "inspect").glob("*.png"))[:4]]
        rows = [np.hstack(tiles[:2]), np.hstack(tiles[2:])]
        return cv2.imencode(".png", np.vstack(rows))[1].tobytes(), "png"

    def curve(self) -> tuple[bytes, str]:
        """The scores of the validations and the losses of the training."""
        from segbench.report.figures import curves
        from segbench.runs.curves import rows

        keys = "train/loss", "val/mean_iu"
        series = {
            key: tuple(zip(*((step, values[key]) for step, values in rows(self._run) if key in values), strict=True))
            for key in keys
        }
        # A file of its own has no colour of a page around it: grey is read on light and dark.
        return curves(series, "loss, score").replace("currentColor", "#808080").encode(), "svg"

    def panel(self) -> tuple[bytes, str]:
        """A panel of the test."""
        return sorted((self._run / "panels").glob("*.png"))[0].read_bytes(), "png"

    def predicted(self) -> tuple[bytes, str]:
        """Image, overlay, probability and mask of a test image."""
        import cv2
        import tifffile

        name = sorted((self._run / "panels").glob("*.png"))[0].stem
        image = cv2.imread(str(self._cells / "images" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        overlay = cv2.imread(str(self._predicted / "overlays" / f"{name}.png"))[..., ::-1]
        probability = tifffile.imread(self._predicted / "probabilities" / f"{name}-nucleus.tif")
        mask = cv2.imread(str(self._predicted / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        return _row(_grey(image), overlay, _rgb((probability * 255).astype("uint8")), _rgb(mask)), "png"


def _grey(image_HW: Any) -> Any:
    from segbench.display.panels import grey_to_rgb

    return grey_to_rgb(image_HW[None].astype("float32"))


def _rgb(grey_HW: Any) -> Any:
    return grey_HW[..., None].repeat(3, axis=2)


def _label(raw: Any, head: Any) -> Any:
    from segbench.display.panels import colour_labels

    return colour_labels(raw.labels["semantic"], head)


def _row(*pictures_HW3: Any) -> bytes:
    """A PNG of pictures of one size, twice as large, with transparent gaps."""
    import cv2
    import numpy as np

    gap_HW4 = np.zeros((pictures_HW3[0].shape[0], 3, 4), np.uint8)
    opaque = [cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGRA) for picture in pictures_HW3]
    row_HW4 = np.hstack([part for picture in opaque for part in (picture, gap_HW4)][:-1])
    return cv2.imencode(".png", row_HW4.repeat(2, axis=0).repeat(2, axis=1))[1].tobytes()

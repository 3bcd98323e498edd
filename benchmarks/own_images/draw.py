"""Draw two folders: street scenes, where up and down matter, and retinas, where they do not.

`python benchmarks/own_images/draw.py FOLDER SEED` writes FOLDER/street and FOLDER/retina, each with images/, masks/ and
the lists of its split in lists/. The same seed gives the same pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
COUNTS = {"train": 48, "val": 12, "test": 100}


def _noise(rng: np.random.Generator, height: int, width: int, cell: int) -> NDArray[np.float32]:
    """Smooth noise of about unit deviation, HW, with blobs of `cell` pixels."""
    coarse = rng.normal(size=(height // cell + 3, width // cell + 3)).astype(np.float32)
    smooth: NDArray[np.float32] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return smooth


def street(rng: np.random.Generator, height: int = 128, width: int = 192) -> tuple[Image, Image]:
    """A street scene HWC and its mask: 0 sky, 1 building, 2 road, 3 pavement, 4 car, 5 tree, 6 pole.

    Sky and road are of the same grey on a dull day, and buildings and pavement share their colours, so what a region is
    follows from where it is.
    """
    light = rng.uniform(0.55, 1.15)
    dull = rng.uniform(100, 190)
    image = np.zeros((height, width, 3), np.float32)
    mask = np.zeros((height, width), np.uint8)
    horizon = int(height * rng.uniform(0.42, 0.58))
    image[:] = dull + np.array([rng.uniform(-5, 40), rng.uniform(-5, 15), rng.uniform(-15, 5)]) * rng.uniform(0, 1)
    x = 0
    stone = np.array([dull, dull, dull]) * rng.uniform(0.75, 1.1) + rng.normal(0, 12, 3)
    while x < width:
        wide = int(rng.integers(18, 60))
        if rng.random() < 0.8:
            top = int(rng.integers(4, max(horizon - 12, 6)))
            colour = stone + rng.normal(0, 18, 3)
            image[top:horizon, x : x + wide], mask[top:horizon, x : x + wide] = colour, 1
            for y in range(top + 4, horizon - 6, 9):
                for column in range(x + 3, min(x + wide - 4, width), 8):
                    image[y : y + 4, column : column + 3] = colour * rng.uniform(0.5, 1.3)
        x += wide
    image[horizon:], mask[horizon:] = dull * rng.uniform(0.75, 1.1) + rng.normal(0, 5, 3), 2
    vanish = int(width * rng.uniform(0.3, 0.7))
    for edge, wall in ((-rng.uniform(0.0, 0.35) * width, -1), (width * rng.uniform(1.0, 1.35), width)):
        corners = np.array([[vanish, horizon], [edge, height], [wall, height], [wall, horizon]], np.int32)
        cv2.fillPoly(image, [corners], tuple(map(float, stone * rng.uniform(0.9, 1.1))))
        cv2.fillPoly(mask, [corners], 3)
    for _ in range(int(rng.integers(1, 4))):
        foot, x = horizon + int(rng.integers(0, 14)), int(rng.integers(0, width))
        green = np.array([60, 105, 60]) * rng.uniform(0.7, 1.3)
        radius = int(rng.integers(8, 20))
        cv2.line(image, (x, foot), (x, foot - 2 * radius), tuple(map(float, green * 0.6)), 3)
        cv2.line(mask, (x, foot), (x, foot - 2 * radius), 5, 3)
        for _ in range(6):
            at = (x + int(rng.normal(0, radius / 2)), foot - 2 * radius + int(rng.normal(0, radius / 2)))
            cv2.circle(image, at, radius // 2 + 2, tuple(map(float, green * rng.uniform(0.8, 1.2))), -1)
            cv2.circle(mask, at, radius // 2 + 2, 5, -1)
    for _ in range(int(rng.integers(1, 5))):
        near = rng.uniform(0.05, 0.8)
        y, size = int(horizon + near * (height - horizon)), 4 + 16 * near
        x, paint_of_car = int(rng.integers(0, width)), tuple(map(float, rng.uniform(20, 220, 3)))
        body, roof = (int(x - size), int(y - 0.7 * size)), (int(x - 0.6 * size), int(y - 1.2 * size))
        for canvas, paint in ((image, paint_of_car), (mask, 4)):
            cv2.rectangle(canvas, body, (int(x + size), y), paint, -1)
            cv2.rectangle(canvas, roof, (int(x + 0.6 * size), body[1]), paint, -1)
        cv2.rectangle(image, (roof[0] + 1, roof[1] + 1), (int(x + 0.5 * size), body[1]), (70.0, 60.0, 60.0), -1)
        for wheel in (-0.6, 0.6):
            cv2.circle(image, (int(x + wheel * size), y), max(int(size / 5), 1), (25.0, 25.0, 25.0), -1)
            cv2.circle(mask, (int(x + wheel * size), y), max(int(size / 5), 1), 4, -1)
    for _ in range(int(rng.integers(1, 4))):
        x, foot = int(rng.integers(0, width)), horizon + int(rng.integers(2, 20))
        head = (x, int(foot - rng.uniform(0.3, 0.6) * height))
        cv2.line(image, (x, foot), head, (80.0, 80.0, 85.0), 5)
        cv2.line(mask, (x, foot), head, 6, 5)
    image += 9 * _noise(rng, height, width, 24)[..., None] + rng.normal(0, 9, image.shape)
    return np.clip(image * light, 0, 255).astype(np.uint8), mask


def retina(rng: np.random.Generator, height: int = 160, width: int = 160) -> tuple[Image, Image]:
    """A retina HWC (BGR) and its mask: 0 background, 1 vessel. Vessels branch out of the optic disc."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre, radius = (height / 2 + rng.normal(0, 3), width / 2 + rng.normal(0, 3)), 0.46 * height
    inside = np.hypot(y - centre[0], x - centre[1]) < radius
    tone = np.array([40, 75, 165]) * rng.uniform(0.7, 1.2)
    shade = 1 + 0.15 * _noise(rng, height, width, 50) - 0.25 * np.hypot(y - centre[0], x - centre[1]) / radius
    image = (tone * shade[..., None]).astype(np.float32)
    disc = np.array([centre[0] + rng.normal(0, 8), centre[1] + rng.choice([-1, 1]) * rng.uniform(0.4, 0.6) * radius])
    glow = np.exp(-((y - disc[0]) ** 2 + (x - disc[1]) ** 2) / (2 * (0.11 * height) ** 2))[..., None]
    image += glow * np.array([60, 110, 80])
    mask, dark = np.zeros((height, width), np.uint8), np.zeros((height, width), np.float32)
    branches = [(disc.copy(), angle + rng.normal(0, 0.25), rng.uniform(2.2, 3.6)) for angle in np.arange(8) * 0.785]
    while branches:
        place, angle, thick = branches.pop()
        depth = rng.uniform(0.25, 0.5)
        for _ in range(int(rng.integers(20, 45))):
            step = place + 2.5 * np.array([np.sin(angle), np.cos(angle)])
            first, last = (tuple(round(value * 8) for value in at[::-1]) for at in (place, step))
            cv2.line(dark, first, last, depth, max(round(thick), 1), cv2.LINE_AA, 3)
            cv2.line(mask, first, last, 1, max(round(thick), 1), cv2.LINE_8, 3)
            place, angle = step, angle + rng.normal(0, 0.13)
            if rng.random() < 0.05 and thick > 1.2:
                branches.append((place.copy(), angle + rng.choice([-1, 1]) * rng.uniform(0.4, 0.9), thick * 0.7))
        if thick > 1.3:
            branches += [(place.copy(), angle + turn, thick * 0.72) for turn in rng.uniform(0.2, 0.6, 2) * (-1, 1)]
    image *= 1 - cv2.GaussianBlur(dark, (0, 0), 0.7)[..., None] * np.array([0.6, 1.0, 0.5])
    image += rng.normal(0, 7, image.shape)
    image[~inside], mask[~inside] = rng.normal(8, 3, (int((~inside).sum()), 3)), 0
    return np.clip(image, 0, 255).astype(np.uint8), mask


def draw(folder: Path, seed: int) -> None:
    """Write both folders."""
    for number, scene in enumerate((street, retina)):
        root = folder / scene.__name__
        for name in ("images", "masks", "lists"):
            (root / name).mkdir(parents=True, exist_ok=True)
        start = 0
        for split, count in COUNTS.items():
            names = [f"{index:03d}" for index in range(start, start + count)]
            start += count
            (root / "lists" / f"{split}.txt").write_text("\n".join(names) + "\n")
            for name in names:
                image, mask = scene(np.random.default_rng((seed, number, int(name))))
                cv2.imwrite(str(root / "images" / f"{name}.png"), image)
                cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), int(sys.argv[2]))

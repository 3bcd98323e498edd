"""The reference: a U-Net as it is written in an afternoon, `python plain_unet.py FOLDER STEPS SEED [flip]`.

Adam at 1e-3, cross-entropy, values over 255, random crops, horizontal flips if asked for, the last weights.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

WIDTH, BATCH, TILE = 16, 4, 128


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each normalised."""
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """Five levels, scaled up by repetition."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        sizes = [3, *(WIDTH * 2**level for level in range(5))]
        self.down = nn.ModuleList(block(a, b) for a, b in itertools.pairwise(sizes))
        self.up = nn.ModuleList(block(3 * b, b) for b in reversed(sizes[1:-1]))
        self.score = nn.Conv2d(WIDTH, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits BKHW of images BCHW."""
        kept = []
        for level, layer in enumerate(self.down):
            x = layer(x if level == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for layer, skip in zip(self.up, reversed(kept[:-1]), strict=True):
            x = layer(torch.cat([interpolate(x, size=skip.shape[2:]), skip], 1))
        logits: Tensor = self.score(x)
        return logits


def read(root: Path, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images HWC and masks HW."""
    for name in (root / "lists" / f"{split}.txt").read_text().split():
        image, mask = (
            cv2.imread(str(root / "images" / f"{name}.png")),
            cv2.imread(str(root / "masks" / f"{name}.png"), 0),
        )
        assert image is not None and mask is not None
        yield image, mask


def main(root: Path, steps: int, seed: int, flip: bool) -> None:
    """Train, score the test images, print mean IU and the IU of each class."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    train = list(read(root, "train"))
    classes = max(int(mask.max()) for _, mask in train) + 1
    net = UNet(classes)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        images, masks = [], []
        for number in rng.integers(len(train), size=BATCH):
            image, mask = train[number]
            y, x = (int(rng.integers(side - TILE + 1)) for side in mask.shape)
            turn = -1 if flip and rng.random() < 0.5 else 1
            images.append(image[y : y + TILE, x : x + TILE][:, ::turn].transpose(2, 0, 1) / 255)
            masks.append(mask[y : y + TILE, x : x + TILE][:, ::turn])
        loss = cross_entropy(
            net(torch.tensor(np.stack(images), dtype=torch.float32)), torch.tensor(np.stack(masks)).long()
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    net.eval()
    confusion = np.zeros((classes, classes))
    with torch.no_grad():
        for image, mask in read(root, "test"):
            height, width = mask.shape
            padded = np.pad(image, ((0, -height % 16), (0, -width % 16), (0, 0)), mode="reflect")
            logits = net(torch.tensor(padded.transpose(2, 0, 1)[None] / 255, dtype=torch.float32))
            found = logits[0].argmax(0).numpy()[:height, :width]
            pairs = np.bincount(mask.ravel() * classes + found.ravel(), minlength=classes**2)
            confusion += pairs.reshape(classes, classes)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    scores = np.diag(confusion) / union
    print(f"mean IU {scores.mean():.4f}", scores.round(3).tolist())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), "flip" in sys.argv[4:])

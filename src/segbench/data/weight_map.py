"""U-Net's weight map: errors cost more on the thin background between cells that nearly touch.

Ronneberger, Fischer, Brox, MICCAI 2015 (arXiv:1505.04597), section 3, equation 2.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segbench.data.cells import two_nearest
from segbench.errors import SegbenchError, refuse_no_file
from segbench.runtime.files import written_whole

Balance = Literal["image", "none"] | Sequence[float]
"""Source of w_c: the image's own frequencies, 1 everywhere, or two given numbers (background, cell)."""

TOLERANCE = 1e-6
"""Largest error of the border term: distances are computed only where the term is larger than this."""

_VERSION = b"weight-map-1"


def class_balance(counts_K: Sequence[int] | NDArray[np.integer]) -> tuple[float, ...]:
    """Inverse class frequencies with mean 1 over the pixels counted: w_c = n / (m n_c).

    n_c pixels have class c, n is their sum, and m the number of classes that occur, so sum_c n_c w_c = n: balancing
    moves weight between classes and keeps the loss's scale. A class that does not occur gets 1.

    Args:
        counts_K: pixels of each class, in a data set (as in the paper) or in one image.
    """
    counts = np.asarray(counts_K, np.float64)
    present = counts > 0
    weights = np.ones_like(counts)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return tuple(float(weight) for weight in weights)


def border_reach(w0: float, sigma: float) -> float:
    """The sum d1 + d2, in pixels, beyond which the border term is below `TOLERANCE`: sigma sqrt(2 ln(w0 / 1e-6))."""
    return sigma * math.sqrt(2 * math.log(w0 / TOLERANCE)) if w0 > TOLERANCE else 0.0


def weight_map(
    instances_HW: NDArray[np.integer],
    w0: float = 10.0,
    sigma: float = 5.0,
    balance: Balance = "image",
    void_HW: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Pixel weights: w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2)).

    d1 and d2 are the distances of a **background** pixel to the nearest pixels of the nearest and the second nearest
    cell, in pixels between centres: a one-pixel membrane has d1 = d2 = 1. Pixels inside cells get only w_c, as in the
    paper's figure 3d: there d1 is 0, and the term would weight a cell's own rim, not the gap. With fewer than two cells
    there is no border term.

    Args:
        instances_HW: ids >= 0 of single cells, 0 = background (`connected_cells` makes them from a label).
        w0: height of the border term, >= 0.
        sigma: its width in pixels, > 0.
        balance: w_c. `image`: inverse frequencies of background and cell in this image (`class_balance`); `none`: 1;
            or two numbers (background, cell), such as `class_balance` of the whole data set's counts, as in the paper.
        void_HW: unlabelled pixels: weight 0, and not counted by `balance="image"`.

    Returns:
        HW float32; the border term is exact to 1e-6.

    Raises:
        SegbenchError: instances are not 2-D integer ids >= 0, or w0, sigma or balance are out of range.
    """
    _check(instances_HW, w0, sigma)
    cell_HW = instances_HW > 0
    background, cell = _class_weights(cell_HW, balance, void_HW)
    weight_HW = np.where(cell_HW, np.float32(cell), np.float32(background))
    if w0 > 0:
        d1_HW, d2_HW = two_nearest(instances_HW.astype(np.int32, copy=False), border_reach(w0, sigma))
        near_HW = np.isfinite(d2_HW)
        total = d1_HW[near_HW] + d2_HW[near_HW]
        weight_HW[near_HW] += np.float32(w0) * np.exp(total * total * np.float32(-0.5 / sigma**2))
    if void_HW is not None:
        weight_HW[void_HW] = 0
    return weight_HW


def _check(instances_HW: NDArray[np.integer], w0: float, sigma: float) -> None:
    if instances_HW.ndim != 2 or not np.issubdtype(instances_HW.dtype, np.integer):
        raise SegbenchError(
            f"instances of shape {instances_HW.shape} and type {instances_HW.dtype}",
            "a 2-D array of integer cell ids, 0 = background",
            "number the cells of a label with segbench.data.cells.connected_cells",
        )
    low, high = int(instances_HW.min(initial=0)), int(instances_HW.max(initial=0))
    if low < 0 or high >= 2**31:
        raise SegbenchError(
            f"an instance id of {low if low < 0 else high}",
            "ids from 0 (background) to 2^31 - 1",
            "pass unlabelled pixels as void_HW, and renumber the cells",
        )
    if not (math.isfinite(sigma) and sigma > 0):
        raise SegbenchError(
            f"weight map sigma={sigma}", "a width above 0 pixels", "set sigma=5 (the paper's), or w0=0 for no border"
        )
    if not (math.isfinite(w0) and w0 >= 0):
        raise SegbenchError(f"weight map w0={w0}", "a height of at least 0", "set w0=10 (the paper's)")


def _class_weights(
    cell_HW: NDArray[np.bool_], balance: Balance, void_HW: NDArray[np.bool_] | None
) -> tuple[float, float]:
    if balance == "none":
        return 1.0, 1.0
    if balance == "image":
        labelled = cell_HW.size if void_HW is None else int(cell_HW.size - np.count_nonzero(void_HW))
        cells = int(np.count_nonzero(cell_HW if void_HW is None else cell_HW & ~void_HW))
        background, cell = class_balance([labelled - cells, cells])
        return background, cell
    if isinstance(balance, str) or len(balance) != 2 or not all(math.isfinite(w) and w >= 0 for w in balance):
        raise SegbenchError(
            f"weight map balance={balance}", "image, none, or two weights (background, cell)", "set balance=image"
        )
    return float(balance[0]), float(balance[1])


class WeightMapCache:
    """`weight_map` with a cache: a map is computed once for the same instances and parameters.

    The key is the content (BLAKE2b of shape, ids, void and parameters), so edited labels never get an old map. In a
    folder a map is one `.npy` file that appears whole or not at all; processes may share it.

    Args:
        folder: where maps are kept between runs; None keeps them in memory only.
        w0: this, sigma and balance as in `weight_map`.
        in_memory: how many maps a process keeps, the last used ones.

    Raises:
        SegbenchError: on a call: as `weight_map`, or the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        w0: float = 10.0,
        sigma: float = 5.0,
        balance: Balance = "image",
        in_memory: int = 64,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.w0, self.sigma = float(w0), float(sigma)
        self.balance: Balance = balance if isinstance(balance, str) else tuple(float(weight) for weight in balance)
        self.in_memory = in_memory
        self._maps: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def __call__(
        self, instances_HW: NDArray[np.integer], void_HW: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """The map of `instances_HW`, read-only, as all callers share it."""
        key = self._key(instances_HW, void_HW)
        if key in self._maps:
            self._maps.move_to_end(key)
            return self._maps[key]
        weight_HW = self._read(key, instances_HW.shape)
        if weight_HW is None:
            weight_HW = self.compute(instances_HW, void_HW)
            self._write(key, weight_HW)
        weight_HW.flags.writeable = False
        self._maps[key] = weight_HW
        while len(self._maps) > self.in_memory:
            self._maps.popitem(last=False)
        return weight_HW

    def compute(
        self, instances_HW: NDArray[np.integer], void_HW: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """The map without the cache: for instances that are seen once, such as warped ones."""
        return weight_map(instances_HW, self.w0, self.sigma, self.balance, void_HW)

    def _key(self, instances_HW: NDArray[np.integer], void_HW: NDArray[np.bool_] | None) -> str:
        digest = blake2b(_VERSION, digest_size=16)
        digest.update(repr((self.w0, self.sigma, self.balance, instances_HW.shape, void_HW is None)).encode())
        digest.update(np.ascontiguousarray(instances_HW, np.int32).tobytes())
        if void_HW is not None:
            digest.update(np.ascontiguousarray(void_HW, np.bool_).tobytes())
        return digest.hexdigest()

    def _read(self, key: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        if self.folder is None:
            return None
        try:
            refuse_no_file(self.folder / f"{key}.npy")
            stored: NDArray[np.float32] = np.load(self.folder / f"{key}.npy", allow_pickle=False)
        except Exception:
            # Absent, truncated by a full disk, or damaged in any way, of memory too: compute it again.
            return None
        return stored if stored.shape == shape and stored.dtype == np.float32 else None

    def _write(self, key: str, weight_HW: NDArray[np.float32]) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with written_whole(self.folder / f"{key}.npy") as partial, partial.open("wb") as file:
                np.save(file, weight_HW)
        except OSError as error:
            raise SegbenchError(
                f"weight maps cannot be written to {self.folder}: {error}",
                "a writable folder",
                "set another cache folder, or null to keep maps in memory",
            ) from error

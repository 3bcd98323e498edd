"""A trained network in the memory of a program: images in, probabilities, masks and objects out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segbench.config.requests import averaging
from segbench.config.trust import asked, refuse_untrusted, trusting
from segbench.errors import SegbenchError
from segbench.experiment.left_as_it_was import left_as_it_was
from segbench.runs.directory import Run
from segbench.runtime.frameworks import import_frameworks
from segbench.spec import VOID

if TYPE_CHECKING:
    import torch
    from torch import nn

    from segbench.experiment.ensemble import Named
    from segbench.metrics.decoding import Decoding
    from segbench.prediction.pages import Page
    from segbench.spec import DatasetSpec

log = logging.getLogger(__name__)

Image = str | Path | NDArray[Any] | Mapping[str, NDArray[Any]]
"""A file, an array HW or HWC in the unit of the training images, or one by modality."""


@dataclass(frozen=True)
class Prediction:
    """What a network says of an image.

    Attributes:
        by_head: class probabilities KHW float32 by head.
        class_names: K names by head.
        decoding: how objects are read off the probabilities.
    """

    by_head: Mapping[str, NDArray[np.float32]]
    class_names: Mapping[str, tuple[str, ...]]
    decoding: Decoding

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Those of the first head, KHW float32, summing to 1 over K; NaN where the image has no data."""
        return next(iter(self.by_head.values()))

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """The likeliest class of the first head, HW uint8; 255 where the image has no data."""
        mask_HW: NDArray[np.uint8] = self.probabilities.argmax(0).astype(np.uint8)
        mask_HW[np.isnan(self.probabilities[0])] = VOID
        return mask_HW

    @cached_property
    def instances(self) -> NDArray[np.int32]:
        """Objects of the first head by the run's decoding, HW int32, 0 = none."""
        from segbench.metrics.decoding import decode_instances

        objects_HW = decode_instances(self.probabilities, self.decoding)
        objects_HW[np.isnan(self.probabilities[0])] = 0
        return objects_HW


class Predictor:
    """A trained network with the scale of its images; made by `load`.

    Args:
        run: opened.
        trust: this and the others as in `load`.
        checkpoint: the checkpoint.
        device: the device.
        tile: output side of a tile.
        tta: symmetries.
        tta_scales: scales.
        input_scale: factor.
        match_histogram: images whose grey values others get.
        overlap: of blended tiles.
        ensemble: further runs.
        calibration: of grey levels.
        median: radius of a median filter.
        contours: sigma of contours.
    """

    def __init__(
        self,
        run: Run,
        trust: Sequence[str] = (),
        checkpoint: str | None = None,
        device: str | None = None,
        tile: int | None = None,
        tta: str | None = None,
        tta_scales: Sequence[float] | None = None,
        input_scale: float | None = None,
        match_histogram: str | Path | None = None,
        overlap: float | None = None,
        ensemble: Named | Sequence[Named] = (),
        calibration: str | None = None,
        median: int | None = None,
        contours: float | None = None,
    ) -> None:
        self._overlap = overlap
        import_frameworks()
        import torch

        from segbench.experiment.build import build_dataset_spec, build_decoding, build_task
        from segbench.experiment.calibrate import prepare_finishing
        from segbench.experiment.ensemble import left_out, load_networks, members_of
        from segbench.prediction.histogram import read_reference
        from segbench.runtime.hardware import settle

        recorded = run.config()
        on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
        changes: dict[str, Any] = {
            "trainer.accelerator": "gpu" if on_gpu else "cpu",
            "trainer.devices": 1,
            "trainer.strategy": "auto",
            # Nothing is scored.
            "metrics": {},
            **({} if tile is None else {"tile": tile}),
            **averaging(recorded, tta, None if tta_scales is None else list(tta_scales)),
            **({} if input_scale is None else {"input_scale": None if input_scale == 1 else input_scale}),
            **({} if calibration is None else {"calibration": None if calibration == "none" else calibration}),
            **({} if median is None else {"median": median or None}),
            **({} if contours is None else {"contours": contours or None}),
        }
        call = f"segbench.load({str(run.path)!r}, trust=[...]) with"
        with left_as_it_was(), asked(call, trust), trusting(trust):
            self.config, _ = settle(recorded.replace(changes))
            refuse_untrusted({key: recorded.tree.get(key) for key in ("model", "decoding")})
            self.spec: DatasetSpec = build_dataset_spec(run)
            self._reference = (
                None if match_histogram is None else read_reference(Path(match_histogram), self.spec, log.warning)
            )
            self.task = build_task(self.config, self.spec, training=False)
            self.checkpoint = run.checkpoint(checkpoint)
            self.members = members_of(ensemble or None, self.checkpoint, self.spec)
            load_networks(self.task, self.checkpoint, self.members)
            for sentence in left_out(self.members, self.config):
                log.info("%s", sentence)
            prepare_finishing(self.task, self.config, run, self.checkpoint, None, self.members)
            self.decoding: Decoding = build_decoding(self.config.decoding)
        self.task.eval()

    @property
    def network(self) -> nn.Module:
        """The network, in eval mode."""
        network: nn.Module = self.task.model
        return network

    def predict(self, image: Image) -> Prediction:
        """Predict one image.

        Args:
            image: a file (the first page of a stack), or an array HW or HWC in the unit of the training images.

        Raises:
            SegbenchError: an image of another kind or scale than those that the network was trained on.
        """
        return next(self.predict_all([image]))

    def predict_all(self, images: Sequence[Image], batch_size: int = 1) -> Iterator[Prediction]:
        """Predict images one after another.

        Args:
            images: as in `predict`.
            batch_size: tiles or images of one size that are predicted together; more may change the last bits.

        Raises:
            SegbenchError: as `predict`.
        """
        from segbench.data.tiles import normalise
        from segbench.experiment.evaluating import evaluating
        from segbench.inference.stream import predict_stream
        from segbench.inference.windows import ReadableImage
        from segbench.prediction.histogram import matched

        pages = [self._page(image) for image in images]

        def reader(page: Page) -> Any:
            seen = page if self._reference is None else matched(page, self._reference)

            def read(*window: int) -> dict[str, torch.Tensor]:
                return {name: normalise(part, self.spec.modalities[name]) for name, part in seen.read(*window).items()}

            return read

        readable = [ReadableImage(place, page.size, reader(page)) for place, page in enumerate(pages)]
        done: dict[int, dict[str, NDArray[np.float32]]] = {}
        names = {name: head.class_names for name, head in self.spec.heads.items()}
        # Collected first: between two images the caller's threads and precision are their own.
        with left_as_it_was(), evaluating(self.task, self.config.trainer):
            for window in predict_stream(
                self.network,
                readable,
                tuple(self.spec.heads),
                tile=self.config.tile,
                tta=self.config.tta,
                scales=self.config.tta_scales,
                input_scale=self.config.input_scale,
                channels_last=bool(self.config.task.channels_last),
                batch=batch_size,
                overlap=self._overlap,
                finish=self.task.finish,
            ):
                maps = done.setdefault(window.key, {})
                for head, part in window.probabilities.items():
                    part_Khw = part.float().cpu().numpy()
                    if head not in maps:
                        maps[head] = np.empty((len(part_Khw), *pages[window.key].size), np.float32)
                    height, width = part_Khw.shape[-2:]
                    inside = (window.y, window.y + height, window.x, window.x + width)
                    if (empty_HW := pages[window.key].empty(*inside)) is not None:
                        part_Khw = np.where(empty_HW, np.float32(np.nan), part_Khw)
                    maps[head][:, window.y : window.y + height, window.x : window.x + width] = part_Khw
        for place in range(len(pages)):
            yield Prediction(done.pop(place), names, self.decoding)

    def _page(self, image: Image) -> Page:
        from segbench.data.files.statements import Decoded, empty_pixels
        from segbench.prediction.pages import OpenedFiles, Page
        from segbench.prediction.values import check_kind, check_range, filled, in_unit

        modalities = self.spec.modalities
        if isinstance(image, (str, Path)):
            if len(modalities) > 1:
                raise SegbenchError(
                    f"one file for the modalities {', '.join(modalities)}",
                    "an array for each: {name: array}",
                    "read them first",
                )
            if not Path(image).exists():
                raise SegbenchError(f"no file {image}", "an image", "correct the path")
            files = OpenedFiles(dict.fromkeys(modalities, Path(image)), self.spec)
            try:
                page = files.page(0)
                whole = (0, page.size[0], 0, page.size[1])
                parts, empty = page.read(*whole), page.empty(*whole)
            finally:
                files.close()
        else:
            arrays = image if isinstance(image, Mapping) else dict.fromkeys(modalities, np.asarray(image))
            if set(arrays) != set(modalities) or (len(modalities) > 1 and not isinstance(image, Mapping)):
                raise SegbenchError(
                    f"arrays for {', '.join(arrays)}", f"one for each of {', '.join(modalities)}", "give {name: array}"
                )
            parts, empty = {}, None
            for name, spec in modalities.items():
                array_HWC = np.asarray(arrays[name])
                if array_HWC.ndim not in (2, 3):
                    raise SegbenchError(f"an array of shape {array_HWC.shape}", "HW or HWC", "take one image of it")
                array_HWC = array_HWC[..., None] if array_HWC.ndim == 2 else array_HWC
                named = Path(f"the array {name}")
                check_kind(named, array_HWC.shape[2], array_HWC.dtype, name, spec)
                nodata = () if spec.reading.nodata is None else ((spec.reading.nodata,),)
                decoded = Decoded(array_HWC, empty_pixels(array_HWC, nodata))
                check_range(named, decoded, spec)
                parts[name] = in_unit(filled(decoded, spec), spec)
                if decoded.empty_HW is not None:
                    empty = decoded.empty_HW if empty is None else empty | decoded.empty_HW
        size = next(iter(parts.values())).shape[:2]
        return Page(
            (int(size[0]), int(size[1])),
            lambda y0, y1, x0, x1: {name: part[y0:y1, x0:x1] for name, part in parts.items()},
            lambda y0, y1, x0, x1: None if empty is None else empty[y0:y1, x0:x1],
        )

"""The commands as functions, for scripts and notebooks.

They raise `SegbenchError` in place of ending the process, and leave the working directory, the environment, Hydra, the
logs, signal handlers, thread counts and torch's flags as they were. The random generators of Python, numpy and torch
are seeded by a training.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segbench.cli.arguments import quoted
from segbench.cli.train import resume_run, resumes
from segbench.config.composed import resolved
from segbench.config.composing import composing
from segbench.config.own_targets import opened
from segbench.config.record import Config
from segbench.config.requests import RECORDS, EvaluateRequest
from segbench.config.trust import asked, names_in, own, refuse_untrusted, trusting
from segbench.errors import SegbenchError
from segbench.experiment.stages import Stage, compose_stages, trees_of
from segbench.papers.named import name_deviations
from segbench.runs.directory import Run
from segbench.runtime.frameworks import import_frameworks
from segbench.runtime.processes import is_main_process, new_run_id
from segbench.runtime.signals import Stopped
from segbench.runtime.torchvision import refuse_broken_torchvision
from segbench.spec import VOID

if TYPE_CHECKING:
    import torch
    from torch import nn

    from segbench.data.datamodule import SegmentationData
    from segbench.data.raw import DataSet
    from segbench.metrics.decoding import Decoding
    from segbench.prediction.pages import Page
    from segbench.spec import DatasetSpec
    from segbench.training.task import SegmentationTask

# Before any function here imports Lightning, which would fail with a traceback.
refuse_broken_torchvision()

Overrides = Sequence[str]
"""`["optimizer.lr=1e-3", "experiment=unet_isbi_em"]`, as on the command line."""
Image = str | Path | NDArray[Any] | Mapping[str, NDArray[Any]]
"""A file, an array HW or HWC in the unit of the training images, or one by modality."""


def compose(overrides: Overrides = (), config_dir: str | Path | None = None) -> Config:
    """The config of a training, checked.

    Args:
        overrides: as on the command line.
        config_dir: a folder of your own configs.

    Raises:
        SegbenchError: overrides that cannot be composed, or values out of range.
    """
    config = _composed("train", overrides, config_dir).config
    assert isinstance(config, Config)
    return config


@dataclass(frozen=True)
class _Composed:
    config: Any
    directory: Path
    stages: tuple[Stage, ...]
    overrides: list[str]


def _listed(overrides: Overrides) -> list[str]:
    listed = [overrides] if isinstance(overrides, str) else list(overrides)
    if flags := [each for each in listed if each.startswith("-")]:
        raise SegbenchError(
            f"{', '.join(flags)} among the overrides",
            "key=value: flags, such as -m for a sweep, are the command's",
            "segbench train -m ..., or a loop",
        )
    return listed


def _composed(verb: str, overrides: Overrides, config_dir: str | Path | None = None) -> _Composed:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict, read_write

    given = opened(quoted(_listed(overrides)))
    with composing(verb, given, None if config_dir is None else Path(config_dir)):
        whole = hydra.compose(verb, given, return_hydra_config=True)
        HydraConfig.instance().set_config(whole)
        task = copy.deepcopy(whole)
        with read_write(task), open_dict(task):
            del task["hydra"]
        config = RECORDS[verb].of(resolved(task, overrides=given, hydra=whole.hydra))
        named = any(each.lstrip("+").startswith("hydra.run.dir=") for each in given)
        outputs = Path(os.environ.get("SEGBENCH_OUTPUTS", "outputs"))
        name = str(config.tree.get("name"))
        directory = Path(str(whole.hydra.run.dir)) if named else outputs / name / new_run_id()
        stages = compose_stages(config, given) if isinstance(config, Config) else ()
    return _Composed(config, directory, stages, given)


def train(
    given: Config | Overrides = (), *, config_dir: str | Path | None = None, directory: str | Path | None = None
) -> Run:
    """Train and score, as `segbench train`.

    Args:
        given: a config of `compose`, or overrides; `["resume=RUN"]` continues a run, with what may stand beside it.
        config_dir: a folder of your own configs, for overrides.
        directory: of the run; None: `outputs/<name>/<run id>`.

    Returns:
        the run: `run.path`, `run.results()["metrics"]`.

    Raises:
        SegbenchError: whatever is wrong with the config, the data or the run.
        KeyboardInterrupt: it was stopped; `segbench train resume=RUN` continues it.
    """
    from segbench.experiment.train import train as train_in

    if not isinstance(given, Config) and resumes(words := _listed(given)):
        if config_dir is not None or directory is not None:
            raise SegbenchError("resume=RUN with another directory", "a run in its own", "leave out the other one")
        with _left_as_it_was():
            return Run(resume_run(words))
    if isinstance(given, Config):
        if given.stages and given.init_from is None:
            raise SegbenchError(
                f"a config with stages: {given.stages}", "overrides, from which they are composed", "train(overrides)"
            )
        outputs = Path(os.environ.get("SEGBENCH_OUTPUTS", "outputs"))
        composed = _Composed(given, outputs / given.name / new_run_id(), (), [])
    else:
        composed = _composed("train", given, config_dir)
    path = composed.directory if directory is None else Path(directory)
    with _left_as_it_was(), own(composed.config.tree, *trees_of(composed.stages)):
        train_in(composed.config, path, composed.overrides, stages=composed.stages)
    if is_main_process():
        name_deviations(path)
    return Run(path)


def evaluate(
    run: str | os.PathLike[str],
    overrides: Overrides = (),
    *,
    trust: str | Sequence[str] = (),
    directory: str | Path | None = None,
) -> Run:
    """Score a run in a directory of its own, as `segbench evaluate`.

    Args:
        run: a run, or its directory.
        overrides: `["split=val", "checkpoint=last"]`.
        trust: names of your own classes that the run may name.
        directory: of the evaluation; None: `outputs/evaluate/<run id>`.

    Returns:
        the evaluation: `results()["metrics"]`.

    Raises:
        SegbenchError: as `segbench evaluate`.
    """
    from segbench.experiment.evaluate import evaluate as evaluate_in

    path = Path(run)
    composed = _composed("evaluate", [f"run={path}", *_listed(overrides)])
    request: EvaluateRequest = composed.config
    names = names_in(trust)
    if names:
        request = request.replace({"trust": list(names)})
    where = composed.directory if directory is None else Path(directory)
    with _left_as_it_was(), asked(f"segbench.evaluate({str(path)!r}, trust=[...]) with", names):
        evaluate_in(request, where, composed.overrides)
    if is_main_process():
        name_deviations(where)
    return Run(where)


@dataclass(frozen=True)
class Parts:
    """What a training is made of, for a Trainer of your own.

    `Trainer(use_distributed_sampler=False, max_steps=100).fit(parts.task, parts.data)`

    Attributes:
        config: settled on this machine and for these data.
        dataset: the data set.
        data: the DataModule; in a loop without a Trainer `data.normalised(batch)` is what the network takes.
        task: the LightningModule; `task.model` is the network.
    """

    config: Config
    dataset: DataSet
    data: SegmentationData
    task: SegmentationTask

    @property
    def network(self) -> nn.Module:
        """The network."""
        network: nn.Module = self.task.model
        return network


def build(given: Config | Overrides = (), *, config_dir: str | Path | None = None) -> Parts:
    """The data set, the DataModule and the task of a config, its network with freshly drawn weights.

    Args:
        given: a config of `compose`, or overrides.
        config_dir: a folder of your own configs, for overrides.

    Raises:
        SegbenchError: as `train`.
    """
    import_frameworks()
    from segbench.experiment.axes import settle_network
    from segbench.experiment.build import build_data, build_dataset, build_task, refuse_misfits_of
    from segbench.experiment.settled_by_data import settle_by_data
    from segbench.inference.stream import geometry_of
    from segbench.runtime.hardware import settle

    config = given if isinstance(given, Config) else compose(given, config_dir)
    with _left_as_it_was(), own(config.tree):
        config, _ = settle(config)
        config = settle_network(config)
        refuse_misfits_of(config)
        dataset = build_dataset(config.data, config.weights, config.model)
        config, _ = settle_by_data(config, dataset)
        task = build_task(config, dataset.spec)
        return Parts(config, dataset, build_data(config, dataset, geometry_of(task.model)), task)


def load(
    run: str | os.PathLike[str],
    *,
    trust: str | Sequence[str] = (),
    checkpoint: str | None = None,
    device: str | None = None,
    tile: int | None = None,
    tta: str | None = None,
    overlap: float | None = None,
) -> Predictor:
    """A run's network, to predict images with.

    Args:
        run: a run, or its directory.
        trust: names of your own classes that the run may name.
        checkpoint: `best` or `last`; None: best if there is one.
        device: `cpu` or `cuda`; None: a GPU if there is one.
        tile: the largest output side of a tile in pixels; None: as the run recorded.
        tta: `none`, `rot4` or `d4`; None: as the run recorded.
        overlap: share of a tile's side by which tiles overlap and are blended, above 0 and at most 0.5:
            approximate; None: exact.

    Raises:
        SegbenchError: no such run or checkpoint, or a config that names what is not trusted.
    """
    opened_run = Run.open(run)
    return Predictor(opened_run, names_in(trust), checkpoint, device, tile, tta, overlap)


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
        overlap: of blended tiles.
    """

    def __init__(
        self,
        run: Run,
        trust: Sequence[str] = (),
        checkpoint: str | None = None,
        device: str | None = None,
        tile: int | None = None,
        tta: str | None = None,
        overlap: float | None = None,
    ) -> None:
        self._overlap = overlap
        import_frameworks()
        import torch

        from segbench.experiment.build import build_dataset_spec, build_decoding, build_task
        from segbench.runtime.hardware import settle
        from segbench.training.checkpoint import load_weights

        recorded = run.config()
        on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
        changes: dict[str, Any] = {
            "trainer.accelerator": "gpu" if on_gpu else "cpu",
            "trainer.devices": 1,
            "trainer.strategy": "auto",
            # Nothing is scored.
            "metrics": {},
            **({} if tile is None else {"tile": tile}),
            **({} if tta is None else {"tta": tta}),
        }
        call = f"segbench.load({str(run.path)!r}, trust=[...]) with"
        with _left_as_it_was(), asked(call, trust), trusting(trust):
            refuse_untrusted({key: recorded.tree.get(key) for key in ("model", "decoding")})
            self.config, _ = settle(recorded.replace(changes))
            self.spec: DatasetSpec = build_dataset_spec(run)
            self.task = build_task(self.config, self.spec, training=False)
            self.checkpoint = run.checkpoint(checkpoint)
            load_weights(self.task.model, self.checkpoint)
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
        from segbench.experiment.predict import evaluating
        from segbench.inference.stream import ReadableImage, predict_stream

        pages = [self._page(image) for image in images]

        def reader(page: Page) -> Any:
            def read(*window: int) -> dict[str, torch.Tensor]:
                return {name: normalise(part, self.spec.modalities[name]) for name, part in page.read(*window).items()}

            return read

        readable = [ReadableImage(place, page.size, reader(page)) for place, page in enumerate(pages)]
        done: dict[int, dict[str, NDArray[np.float32]]] = {}
        names = {name: head.class_names for name, head in self.spec.heads.items()}
        # Collected first: between two images the caller's threads and precision are their own.
        with _left_as_it_was(), evaluating(self.task, self.config.trainer):
            for window in predict_stream(
                self.network,
                readable,
                tuple(self.spec.heads),
                tile=self.config.tile,
                tta=self.config.tta,
                channels_last=bool(self.config.task.channels_last),
                batch=batch_size,
                overlap=self._overlap,
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


@contextlib.contextmanager
def _left_as_it_was() -> Iterator[None]:
    """Restore the environment, the thread counts and what a Trainer sets of torch.

    A signal that ended a run is Ctrl-C, not the end of the process.

    Raises:
        KeyboardInterrupt: in place of `Stopped`.
    """
    import cv2
    import numba
    import torch

    from segbench.training.precision import tf32_kept

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    environment = dict(os.environ)
    counts = numba.get_num_threads(), torch.get_num_threads(), cv2.getNumThreads()
    cudnn = torch.backends.cudnn
    of_cudnn = cudnn.benchmark, cudnn.deterministic
    tf32_as_it_was = tf32_kept()
    exact = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    except Stopped as stopped:
        raise KeyboardInterrupt(str(stopped)) from stopped
    finally:
        numba.set_num_threads(counts[0])
        torch.set_num_threads(counts[1])
        cv2.setNumThreads(counts[2])
        cudnn.benchmark, cudnn.deterministic = of_cudnn
        tf32_as_it_was()
        torch.use_deterministic_algorithms(exact[0], warn_only=exact[1])
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)

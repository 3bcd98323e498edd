"""The commands as functions, for scripts and notebooks.

They raise `SegbenchError` in place of ending the process, and leave the working directory, the environment, Hydra, the
logs, signal handlers, thread counts and torch's flags as they were. The random generators of Python, numpy and torch
are seeded by a training.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.cli.arguments import quoted
from segbench.cli.train import resume_run, resumes
from segbench.config.composed import resolved
from segbench.config.composing import composing
from segbench.config.own_targets import opened
from segbench.config.record import Config
from segbench.config.requests import RECORDS, EvaluateRequest
from segbench.config.trust import asked, names_in, own
from segbench.errors import SegbenchError
from segbench.experiment.left_as_it_was import left_as_it_was
from segbench.experiment.predictor import Predictor
from segbench.experiment.stages import Stage, compose_stages, trees_of
from segbench.papers.named import name_deviations
from segbench.runs.directory import Run
from segbench.runtime.frameworks import import_frameworks
from segbench.runtime.processes import is_main_process, new_run_id
from segbench.runtime.torchvision import refuse_broken_torchvision

if TYPE_CHECKING:
    from torch import nn

    from segbench.data.datamodule import SegmentationData
    from segbench.data.raw import DataSet
    from segbench.training.task import SegmentationTask

# Before any function here imports Lightning, which would fail with a traceback.
refuse_broken_torchvision()

Overrides = Sequence[str]
"""`["optimizer.lr=1e-3", "experiment=unet_isbi_em"]`, as on the command line."""


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
        with left_as_it_was():
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
    with left_as_it_was(), own(composed.config.tree, *trees_of(composed.stages)):
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
    with left_as_it_was(), asked(f"segbench.evaluate({str(path)!r}, trust=[...]) with", names):
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
    from segbench.inference.forward import geometry_of
    from segbench.runtime.hardware import settle

    config = given if isinstance(given, Config) else compose(given, config_dir)
    with left_as_it_was(), own(config.tree):
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
    tta_scales: Sequence[float] | None = None,
    input_scale: float | None = None,
    match_histogram: str | os.PathLike[str] | None = None,
    overlap: float | None = None,
    ensemble: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    calibration: str | None = None,
    median: int | None = None,
    contours: float | None = None,
) -> Predictor:
    """A run's network, to predict images with.

    Args:
        run: a run, or its directory.
        trust: names of your own classes that the run may name.
        checkpoint: `best` or `last`; None: best if there is one.
        device: `cpu` or `cuda`; None: a GPU if there is one.
        tile: the largest output side of a tile in pixels; None: as the run recorded.
        tta: `none`, `rot4`, `d4` or `multiscale`; None: as the run recorded.
        tta_scales: those that `multiscale` averages over; None: as the run recorded, else 0.5 to 1.75 by quarters.
        input_scale: the network sees images resized by this factor, 0.05 to 16, and probabilities are resized back;
            None: as the run recorded, else 1.
        match_histogram: a file or folder of images that the network was trained on: the grey values of each channel of
            each image are mapped so that they are distributed as in these; None: they are left as they are.
        overlap: share of a tile's side by which tiles overlap and are blended, above 0 and at most 0.5:
            approximate; None: exact.
        ensemble: further runs, whose probabilities are averaged with the run's: directories, each with `:best` or
            `:last` where a checkpoint is asked for.
        calibration: `cubic`: probabilities of two classes go through a cubic polynomial, fitted on the run's training
            images unless the run has recorded it; `none`; None: as the run recorded.
        median: radius in pixels of a median filter that they then go through, 0 for none; None: as the run recorded.
        contours: sigma in pixels of the closed contours that are drawn in their place, 0 for none; None: as the run
            recorded.

    Raises:
        SegbenchError: no such run or checkpoint, or a config that names what is not trusted.
    """
    opened_run = Run.open(run)
    return Predictor(
        opened_run,
        names_in(trust),
        checkpoint,
        device,
        tile,
        tta,
        tta_scales,
        input_scale,
        None if match_histogram is None else Path(match_histogram),
        overlap,
        ensemble,
        calibration,
        median,
        contours,
    )

"""The one LightningModule: a network, a loss and measures for each head; it knows no data set."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric

from segbench.errors import SegbenchError
from segbench.inference.finishing import Finishing
from segbench.inference.outputs import as_heads
from segbench.inference.stream import predict_image
from segbench.losses import Loss
from segbench.losses.loss import Sums
from segbench.metrics.measure import ImageResult, Measure
from segbench.metrics.states import MeasureState, OtherState
from segbench.runtime.threads import use_threads
from segbench.spec import Batch, DatasetSpec, ScoreInfo, of_class
from segbench.training.checkpoint import keep_what_fits
from segbench.training.counting import Counting
from segbench.training.lightning_internals import batches_of_step, logs_now
from segbench.training.optim import Schedule, Scheduled

log = logging.getLogger(__name__)

OptimizerFactory = Callable[[nn.Module], torch.optim.Optimizer]


@dataclass(frozen=True)
class Evaluation:
    """How evaluation is done; the same settings give the same integers.

    Attributes:
        tile: output side of an inference tile in pixels; None: the whole image at once.
        tta: symmetries that predictions are averaged over at test: `none`, `rot4`, `d4` or `multiscale`.
        threads: CPU threads, in training too; fixed, because sums in another order may round otherwise.
        scales: that `multiscale` averages over; empty for any other.
        input_scale: factor that images are resized by at test; None: 1.
    """

    tile: int | None = None
    tta: str = "none"
    threads: int = 1
    scales: tuple[float, ...] = ()
    input_scale: float | None = None


class SegmentationTask(lightning.LightningModule):
    """Train and score a segmentation network.

    Args:
        model: maps images to `{head: logits_BKHW}`, or to logits alone where there is one head.
        spec: of the data set.
        losses: one per head, `loss(logits_BKHW, target_BHW, weight_BHW)`; they are summed. Several processes need a
            `segbench.losses.Loss`, whose sums are added over them, or average each its own loss.
        measures: one or more per head; metrics of torchmetrics are counted beside them.
        optimizer: makes the model's optimiser.
        schedule: makes the learning-rate schedule and says when it steps.
        evaluation: how predictions are made at validation and test.
        seed: dropout of a step is a function of (seed, step, rank), and of the batch where several are accumulated.
        channels_last: memory format of the model and its inputs.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: DatasetSpec,
        losses: Mapping[str, nn.Module],
        measures: Mapping[str, Sequence[Measure] | Mapping[str, Measure | Metric]],
        optimizer: OptimizerFactory,
        schedule: Schedule,
        evaluation: Evaluation,
        seed: int = 0,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.spec, self.evaluation, self.seed = spec, evaluation, seed
        self.losses = nn.ModuleDict(losses)
        self._optimizer, self._schedule = optimizer, schedule
        named = {
            head: of_head if isinstance(of_head, Mapping) else {measure.name: measure for measure in of_head}
            for head, of_head in measures.items()
        }

        def by_stage(make: Callable[[str, str, Any], nn.Module | None]) -> nn.ModuleDict:
            def of(stage: str, head: str) -> nn.ModuleDict:
                made = {name: make(stage, head, each) for name, each in named[head].items()}
                return nn.ModuleDict({name: state for name, state in made.items() if state is not None})

            heads = {stage: {head: of(stage, head) for head in spec.heads} for stage in ("val", "test")}
            return nn.ModuleDict({stage: nn.ModuleDict(of_heads) for stage, of_heads in heads.items()})

        def counted(stage: str, head: str, measure: Any) -> nn.Module | None:
            left_out = isinstance(measure, Metric) or (stage == "val" and measure.test_only)
            return None if left_out else MeasureState(measure)

        self.states = by_stage(counted)
        names = {id(each): name for of_head in named.values() for name, each in of_head.items()}
        self.others = by_stage(
            lambda stage, head, each: (
                OtherState(each.clone(), names[id(each)], spec.heads[head].ignore_index)
                if isinstance(each, Metric)
                else None
            )
        )
        self.scores: dict[str, dict[str, float]] = {}
        self.visits: dict[str, list[int]] = {}
        """How often each image of the last validation or test was counted that was counted at all, by stage."""
        self._counting = Counting(0)
        self._told_of_void: set[str] = set()
        self._plateau: Scheduled | None = None
        self.resumed_after_validation = False
        """Set by a resume from a checkpoint that precedes a validation that was finished."""
        self.test_split = "test"
        self.finish: Finishing | None = None
        """What is done with probabilities at the end, but for those of validations."""
        self.takes_what_fits = False

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop what does not fit, where a resume allows another network."""
        if self.takes_what_fits:
            keep_what_fits(checkpoint, self.state_dict())

    def setup(self, stage: str) -> None:
        """Set the thread count: where Lightning has several processes, it has just set another."""
        use_threads(self.evaluation.threads)

    # Training

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits by head; images BCHW by modality."""
        images = {name: image.contiguous(memory_format=self.memory_format) for name, image in images.items()}
        only = next(iter(images.values())) if len(images) == 1 else images
        height, width = next(iter(images.values())).shape[-2:]
        return as_heads(self.model(only), tuple(self.spec.heads), (height, width))

    def on_fit_start(self) -> None:
        """Check that every loss can be computed across processes.

        Raises:
            SegbenchError: one cannot.
        """
        ranks = self.trainer.world_size
        for head, loss in _modules(self.losses):
            if ranks > 1 and isinstance(loss, Loss) and not loss.additive:
                raise SegbenchError(
                    f"a loss of {head} on {ranks} processes that is not a function of sums: {type(loss).__name__}",
                    "a loss that is; LovaszSoftmax sums over images, not over the pixels of a batch",
                    "set trainer.devices=1, or for LovaszSoftmax per_image=true",
                )
            if ranks > 1 and not isinstance(loss, Loss) and self.global_rank == 0:
                log.warning(
                    "the loss of %s is averaged over %d processes, each by its own pixels; a segbench.losses.Loss is "
                    "the same on any number of processes",
                    *(head, ranks),
                )

    def on_train_start(self) -> None:
        """Tell a schedule that follows a score of the validation that a resume does not repeat."""
        if self.resumed_after_validation:
            self._follow()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The sum of the heads' losses.

        Where a step takes n batches, its gradient is the mean of their gradients. n is
        `trainer.accumulate_grad_batches`; the last step of an epoch takes the batches that are left. Compared with one
        large batch, the gradient is the same for a mean over pixels if all batches have equally many labelled ones
        (else pixels of batches with few of them count more), 1/n of it for a sum over pixels (as Caffe's `iter_size`),
        and different for losses of a set of pixels (Dice). Several processes are another case: their pixels count as
        one batch, whatever the loss.

        Returns:
            `batch_loss`: the batch's loss, which is logged and shown; `loss`: the same, from which Lightning takes the
            gradient once it has divided it by `accumulate_grad_batches`, so larger by as much as n is smaller.
        """
        self._seed_dropout(batch_idx)
        logits = self(batch.images)
        logged = logs_now(self.trainer)
        loss = torch.stack([self._loss(head, logits[head], batch, logged) for head in self.spec.heads]).sum()
        if logged:
            self.log("train/loss", loss.detach(), batch_size=len(batch.ids))
        every, held = self.trainer.accumulate_grad_batches, batches_of_step(self.trainer, batch_idx)
        return {"loss": loss if held == every else loss * (every / held), "batch_loss": loss.detach()}

    def _seed_dropout(self, batch_idx: int) -> None:
        # Dropout is counted, not drawn: a resume or another number of workers changes nothing.
        accumulated = batch_idx % self.trainer.accumulate_grad_batches
        seed = _mix(self.seed, self.global_step, self.global_rank, *([accumulated] if accumulated else []))
        # Not torch.manual_seed: without a GPU it formats a traceback on each call, for a GPU that may come later.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _loss(self, head: str, logits_BKHW: Tensor, batch: Batch, logged: bool) -> Tensor:
        criterion = self.losses[head]
        target = centre_crop(batch.targets[head], logits_BKHW)
        weight = None if batch.weight is None else centre_crop(batch.weight, logits_BKHW)
        if not isinstance(criterion, Loss):
            loss: Tensor = criterion(logits_BKHW, target, weight)
            # DDP averages gradients over the ranks.
            return loss * self.trainer.world_size if getattr(criterion, "reduction", "mean") == "sum" else loss
        sums = self._over_ranks(criterion.sums(logits_BKHW, target, weight))
        if logged:
            for name, term in criterion.terms(sums).items():
                self.log(self.key("train", head, f"loss/{name}"), term.detach(), batch_size=len(batch.ids))
        return criterion.value(sums)

    def _over_ranks(self, sums: Sums) -> Sums:
        """The sums over all ranks' batches; their gradient is this rank's, times the ranks that DDP averages over."""
        ranks = self.trainer.world_size
        if ranks == 1:
            return sums
        own = torch.cat([each.reshape(-1) for each in sums.values()])
        everywhere = torch.as_tensor(self.all_gather(own.detach())).sum(0)
        shares = torch.split(everywhere + ranks * (own - own.detach()), [each.numel() for each in sums.values()])
        return {name: share.view_as(each) for (name, each), share in zip(sums.items(), shares, strict=True)}

    def configure_optimizers(self) -> Any:
        """The optimiser and its schedule.

        Raises:
            SegbenchError: the training has no end to make a schedule for.
        """
        total = self.trainer.estimated_stepping_batches
        if math.isinf(total):
            raise SegbenchError(
                "trainer.max_steps=-1 and trainer.max_epochs=-1: a training without an end",
                "a number of steps or of epochs",
                "set trainer.max_steps=N or trainer.max_epochs=N",
            )
        optimizer = self._optimizer(self.model)
        made = self._schedule(optimizer, int(total))
        made = made if isinstance(made, Scheduled) else Scheduled(made)
        when: dict[str, Any] = {"interval": made.interval, "frequency": made.frequency}
        if made.monitor is not None:
            # Lightning counts a frequency within an epoch, where a validation may come at any step: `_follow` steps it.
            self._plateau, when = made, {"interval": "epoch", "frequency": sys.maxsize, "strict": False}
            when["monitor"] = made.monitor
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": made.schedule, **when}}

    def _follow(self) -> None:
        """Step a schedule that follows a score of the validation."""
        score = self.scores.get("val", {}).get(str(self._plateau.monitor)) if self._plateau is not None else None
        if self._plateau is not None and score is not None and not math.isnan(score):
            step: Any = self._plateau.schedule.step
            step(score)

    # Evaluation

    def _count(self, stage: str, batch: Batch, tta: str | None) -> dict[str, list[dict[str, ImageResult]]]:
        return {"results": [self._score(stage, batch, position, tta) for position in range(len(batch.ids))]}

    def _score(self, stage: str, batch: Batch, position: int, tta: str | None) -> dict[str, ImageResult]:
        height, width = batch.sizes[position]
        images = {name: image[position, :, :height, :width] for name, image in batch.images.items()}
        instances_HW, references = _objects(batch, position)
        results = {}
        for head, prob_KHW in self.predict(images, tta, finished=stage == "test").items():
            states = [state for (name, _), state in self.states_of(stage).items() if name == head]
            measures = [state.measure for state in states]
            # Probability maps of many classes are much to move; those of two are drawn as one picture.
            needs_prob = len(prob_KHW) == 2 or any(m.needs_prob for m in measures)
            results[head] = ImageResult(
                label_HW=batch.targets[head][position, :height, :width].cpu().numpy(),
                pred_HW=prob_KHW.argmax(0).cpu().numpy(),
                prob_KHW=prob_KHW.cpu().numpy() if needs_prob else None,
                raw_CHW=self.raw(images) if any(m.needs_raw for m in measures) else None,
                instances_HW=instances_HW,
                references=references,
                ignore_index=self.spec.heads[head].ignore_index,
            )
            for state in states:
                self._counting.add(state, batch.indices[position], results[head])
            if batch.indices[position] >= 0:
                label_HW = batch.targets[head][position, :height, :width]
                for other in (other for (name, _), other in self.others_of(stage).items() if name == head):
                    other.update(prob_KHW, label_HW.to(prob_KHW.device))
        return results

    def predict(self, images: Mapping[str, Tensor], tta: str | None = None, finished: bool = True) -> dict[str, Tensor]:
        """Class probabilities KHW float32 by head, of one image (CHW by modality); `finished` by `finish`.

        A `tta` that is given takes the place of the evaluation's, and of its scales. What is not finished is of the
        image as it is, without `input_scale`.
        """
        return predict_image(
            self.model,
            images,
            tuple(self.spec.heads),
            tile=self.evaluation.tile,
            tta=self.evaluation.tta if tta is None else tta,
            scales=self.evaluation.scales or None,
            input_scale=self.evaluation.input_scale if finished else None,
            channels_last=self.memory_format == torch.channels_last,
            finish=self.finish if finished else None,
        )

    def raw(self, images: Mapping[str, Tensor]) -> NDArray[np.float32]:
        """The first modality before normalisation, CHW in its unit."""
        name = next(iter(self.spec.modalities))
        modality = self.spec.modalities[name]
        std_C11, mean_C11 = (np.array(x, np.float32)[:, None, None] for x in (modality.std, modality.mean))
        raw: NDArray[np.float32] = images[name].float().cpu().numpy() * std_C11 + mean_C11
        return raw

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[dict[str, ImageResult]]]:
        """Count a batch of whole images; `results` by image and head go to the callbacks."""
        return self._count("val", batch, "none")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, list[dict[str, ImageResult]]]:
        """Count a batch of whole images, predictions averaged over the run's symmetries."""
        return self._count("test", batch, None)

    def on_validation_epoch_start(self) -> None:
        """Forget earlier counts."""
        self._start("val")

    def on_test_epoch_start(self) -> None:
        """Forget earlier counts."""
        self._start("test")

    def on_validation_epoch_end(self) -> None:
        """Log the split's scores."""
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Log the split's scores."""
        self._finish("test")

    def _start(self, stage: str) -> None:
        # On a CPU the network itself takes all threads of the run.
        self._counting.close()
        self._counting = Counting(0 if self.device.type == "cpu" else self.evaluation.threads)
        for state in self.states_of(stage).values():
            state.reset()
        for other in self.others_of(stage).values():
            other.reset()

    def teardown(self, stage: str) -> None:
        """Give up counting what a failed evaluation left."""
        self._counting.close()

    def _finish(self, stage: str) -> None:
        self._counting.finish()
        if self.trainer.sanity_checking:
            return
        scores: dict[str, float] = {}
        labelled: dict[str, int] = {}
        for (head, _), state in self.states_of(stage).items():
            scores |= {self.key(stage, head, name): value for name, value in state.scores().items()}
            counted = state.counted()
            labelled[head], self.visits[stage] = counted.labelled, counted.visits.tolist()
        for (head, _), other in self.others_of(stage).items():
            scores |= {self.key(stage, head, name): value for name, value in other.scores().items()}
        self.scores[stage] = scores
        if stage == "val" and self._plateau is not None and self.trainer.state.fn == "fit":
            self._follow()
        self._tell_of_void(stage, [head for head, pixels in labelled.items() if pixels == 0])
        self.log_dict({key: value for key, value in scores.items() if of_class(key) is None}, rank_zero_only=False)

    def _tell_of_void(self, stage: str, heads: Sequence[str]) -> None:
        if not heads or stage in self._told_of_void or self.global_rank > 0:
            return
        self._told_of_void.add(stage)
        split = self.test_split if stage == "test" else stage
        ignored = ", ".join(f"{head}: {self.spec.heads[head].ignore_index}" for head in heads)
        log.warning(
            "no pixel of the %s images is labelled, all are void (%s): their scores are undefined%s; check the label "
            "files of that split, or score other images",
            *(split, ignored, ", so no best checkpoint is chosen" if stage == "val" else ""),
        )

    def states_of(self, stage: str) -> dict[tuple[str, str], MeasureState]:
        """The states of a stage by (head, measure)."""
        return {
            (head, name): state
            for head, states in _modules(self.states[stage])
            for name, state in _modules(states)
            if isinstance(state, MeasureState)
        }

    def others_of(self, stage: str) -> dict[tuple[str, str], OtherState]:
        """The metrics of torchmetrics of a stage by (head, name)."""
        return {
            (head, name): state
            for head, states in _modules(self.others[stage])
            for name, state in _modules(states)
            if isinstance(state, OtherState)
        }

    def key(self, stage: str, head: str, name: str) -> str:
        """`<split>/<head, if several>/<metric>`; the stage `test` scores the split that `test_split` names."""
        split = self.test_split if stage == "test" else stage
        return "/".join([split, *([head] if len(self.spec.heads) > 1 else []), name])

    def infos(self, stage: str = "test") -> dict[str, ScoreInfo]:
        """The description of each score of a split, by key."""
        counted = {
            self.key(stage, head, info.name): info
            for (head, _), state in self.states_of(stage).items()
            for info in state.measure.infos()
        }
        return counted | {
            self.key(stage, head, info.name): info
            for (head, _), other in self.others_of(stage).items()
            for info in other.infos()
        }

    def per_image(self, stage: str) -> tuple[NDArray[np.int64], dict[str, NDArray[np.generic]]]:
        """Indices of the images, and `<head>/<measure>/<key>` counts with a leading N; the same on every rank."""
        arrays: dict[str, NDArray[np.generic]] = {}
        indices = np.zeros(0, np.int64)
        for (head, name), state in self.states_of(stage).items():
            indices, counts = state.per_image()
            arrays |= {f"{head}/{name}/{key}": value for key, value in counts.items()}
        return indices, arrays


def centre_crop(target: Tensor, logits_BKHW: Tensor) -> Tensor:
    """The centre of BHW that an unpadded network's smaller output lies over.

    Raises:
        SegbenchError: the output is larger than the target, or not centred in whole pixels.
    """
    height, width = logits_BKHW.shape[-2:]
    dy, dx = target.shape[-2] - height, target.shape[-1] - width
    if dy < 0 or dx < 0 or dy % 2 or dx % 2:
        raise SegbenchError(
            f"an output of {height}x{width} for a target of {target.shape[-2]}x{target.shape[-1]}",
            "an output no larger than the target, smaller by an even number of pixels",
            "correct the network's geometry",
        )
    return target[..., dy // 2 : dy // 2 + height, dx // 2 : dx // 2 + width]


def _objects(batch: Batch, position: int) -> tuple[NDArray[np.int32] | None, dict[str, NDArray[np.int32]]]:
    height, width = batch.sizes[position]

    def ids(objects_BHW: Tensor) -> NDArray[np.int32]:
        ids_HW: NDArray[np.int32] = objects_BHW[position, :height, :width].cpu().numpy()
        return ids_HW

    instances_HW = None if batch.instances is None else ids(batch.instances)
    return instances_HW, {name: ids(objects) for name, objects in batch.references.items()}


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def _modules(modules: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    assert isinstance(modules, nn.ModuleDict)
    return modules.items()

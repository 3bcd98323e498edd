"""What each axis of a config accepts, made from it and checked before anything is trained.

A class of this package, of torch, Lightning, albumentations or torchmetrics, or the user's own: each gets the arguments
that it takes by name among those that a run offers.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric

from segbench.config.instances import instance, located
from segbench.config.record import Component, Config, InitialWeights, Loss, Scheduler
from segbench.config.signatures import hints_of, taken
from segbench.config.trust import refuse_untrusted
from segbench.data.class_counts import of_classes
from segbench.data.raw import DataSet
from segbench.errors import SegbenchError
from segbench.inference.forward import geometry_of
from segbench.inference.outputs import as_heads, described
from segbench.losses.foreign import as_loss, check_loss
from segbench.metrics.measure import Measure, arguments_of_head
from segbench.metrics.states import OtherState
from segbench.models.adapter import Adapter
from segbench.models.published.sets import Input
from segbench.models.wrapped import Wrapped
from segbench.spec import DatasetSpec, HeadSpec
from segbench.training.optim import PER_LAYER, Schedule, Scheduled, parameter_groups


def kind_of(component: Component) -> Any:
    """The class or function that a component names.

    Raises:
        SegbenchError: it is not trusted, or cannot be imported.
    """
    refuse_untrusted({"_target_": component.target})
    return located(component.target)


def make(component: Component, /, **arguments: Any) -> Any:
    """Instantiate a component with its own arguments and further ones.

    Raises:
        SegbenchError: the target, or one inside it, is not trusted (`segbench.config.trust`); or a class of another
            package refuses a value.
    """
    try:
        return instance({**component.arguments, "_target_": component.target}, **arguments)
    except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
        ours = Path(__file__).parents[1].as_posix()
        frames = traceback.extract_tb(error.__traceback__)
        called = Path(frames[-1].filename).as_posix().removeprefix(ours) if frames else ""
        within = bool(frames) and called != Path(frames[-1].filename).as_posix() and called != "/config/instances.py"
        if isinstance(error, SegbenchError) or within:
            raise
        raise SegbenchError(
            f"{component.name} refuses its arguments: {' '.join(str(error).split())}",
            f"arguments that {component.target} takes: {', '.join(hints_of(located(component.target))[0])}",
            "correct them; with --cfg job the command prints those that it is given",
        ) from error


def _ours(component: Component) -> bool:
    return component.target.startswith("segbench.")


def _refuse(axis: str, component: Component, made: object, expected: str, action: str) -> None:
    raise SegbenchError(
        f"{axis}._target_={component.target}, which gives a {type(made).__module__}.{type(made).__qualname__}",
        expected,
        action,
    )


# Data


def make_dataset(component: Component) -> DataSet:
    """The data set.

    Raises:
        SegbenchError: it is none.
    """
    made = make(component)
    if not isinstance(getattr(made, "spec", None), DatasetSpec) or not callable(getattr(made, "split", None)):
        _refuse(
            "data",
            component,
            made,
            "a data set: an attribute `spec` (segbench.spec.DatasetSpec), and `split(name)`, which gives a "
            "segbench.data.raw.Source (`ids`, `read(index) -> RawImage`) or None",
            "give it these; for a torch Dataset of (image, mask): data=torch_dataset",
        )
    dataset: DataSet = made
    return dataset


# Network


def make_network(component: Component, spec: DatasetSpec) -> nn.Module:
    """The network, sized by the data set if it takes `in_channels` and `num_classes`.

    They are numbers where there is one modality or head, else numbers by name. A network of MONAI's signature gets
    `spatial_dims=2` and calls the classes `out_channels`; the network inside a `Wrapped` is sized in the same way.

    Raises:
        SegbenchError: it is no `torch.nn.Module`.
    """
    channels = {name: modality.channels for name, modality in spec.modalities.items()}
    classes = {name: head.num_classes for name, head in spec.heads.items()}
    sizes: dict[str, Any] = {
        "in_channels": next(iter(channels.values())) if len(channels) == 1 else channels,
        "num_classes": next(iter(classes.values())) if len(classes) == 1 else classes,
    }
    kind, given = kind_of(component), component.arguments
    if "spatial_dims" in hints_of(kind)[0]:
        sizes |= {"spatial_dims": 2, "out_channels": sizes["num_classes"]}
    if kind is Wrapped and isinstance(given.get("network"), Mapping):
        model = make(component, network=make_network(Component.model_validate(given["network"]), spec))
    else:
        offered = {name: value for name, value in sizes.items() if name not in given}
        model = make(component, **taken(kind, **offered))
    if not isinstance(model, nn.Module):
        _refuse("model", component, model, "a torch.nn.Module: forward(images_BCHW) -> logits_BKHW", "name a network")
    network: nn.Module = model
    return network


def settle_network(config: Config) -> Config:
    """Fill in what only a network's package, its hub or a file of weights knows, as `Adapter.settled`.

    Once, when a run begins: a run that is read back has it in its record.

    Args:
        config: of the run.

    Raises:
        SegbenchError: the network is not trusted or cannot be imported, or its hub cannot be reached.
    """
    kind, weights = kind_of(config.model), config.weights
    if not (isinstance(kind, type) and issubclass(kind, Adapter)) or (weights is not None and weights.name is not None):
        return config
    before = config.model.arguments
    settled = kind.settled(before, None if weights is None else weights.path)
    return config.replace({f"model.{key}": value for key, value in settled.items() if before.get(key) != value})


def packages_of_network(component: Component) -> tuple[str, ...]:
    """The packages whose versions decide what network an adapter builds; none for other networks.

    Raises:
        SegbenchError: the network is not trusted or cannot be imported.
    """
    kind = kind_of(component)
    return kind.packages if isinstance(kind, type) and issubclass(kind, Adapter) else ()


def network_expects(component: Component, weights: InitialWeights | None) -> Input | None:
    """The input that the published weights of a network expect which reads its own; None if it starts from none.

    Args:
        component: the network.
        weights: of the config.

    Raises:
        SegbenchError: the network is not trusted, or cannot be imported.
    """
    from_file = weights is not None and weights.name is None and weights.path is not None
    if not from_file and component.arguments.get("pretrained") is None:
        return None
    kind = kind_of(component)
    expected: Input | None = kind.expects(component.arguments) if hasattr(kind, "published_weights") else None
    return expected


def check_network(component: Component, model: nn.Module, spec: DatasetSpec, sides: tuple[int, int]) -> str | None:
    """Try a network that is not ours on an image of zeros, before anything is trained.

    Args:
        component: that it was made from.
        model: the network.
        spec: of the data set.
        sides: H and W of an input that it will see.

    Returns:
        a sentence for the log on which output is used, None for one of ours.

    Raises:
        SegbenchError: it fails, or its output has not the heads, classes or size that it should have.
    """
    if _ours(component) and not isinstance(model, Wrapped):
        return None
    images, (height, width) = _zeros(model, spec, sides)
    margin = geometry_of(model).margin
    expected = (
        "forward(images_BCHW, or a mapping of them by modality) -> logits_BKHW, "
        + ", ".join(f"{head.num_classes} classes for {name}" for name, head in spec.heads.items())
        + ", as large as the input"
    )
    training = model.training
    given = f"an input of {height}x{width}"
    try:
        with torch.no_grad():
            output = model.eval()(images)
        logits = as_heads(output, tuple(spec.heads), (height, width))
    except SegbenchError as error:
        raise SegbenchError(f"{component.name}: {error.found}", expected, "give one of these outputs") from error
    except Exception as error:
        raise SegbenchError(
            f"{component.name} fails on {given}: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            expected,
            "set model.step= to the pixels that its sides are multiples of, or choose a network that takes these sides"
            if isinstance(model, Wrapped)
            else "correct it; if it takes certain sizes only, give it an attribute geometry = TileGeometry(step=32) "
            "(segbench.spec), or wrap it: model._target_=segbench.models.wrapped.Wrapped",
        ) from error
    finally:
        model.train(training)
    for name, head in spec.heads.items():
        wanted = (1, head.num_classes, height - 2 * margin, width - 2 * margin)
        if tuple(logits[name].shape) != wanted:
            raise SegbenchError(
                f"{component.name} gives {tuple(logits[name].shape)} for {name} of {given}",
                f"{wanted}: {expected}",
                "give it the number of classes (num_classes=, or the argument by which it calls them), and scale its "
                "output to the input's size",
            )
    remark = getattr(model, "remark", "")
    return f"output of {component.name}: {described(output)}{remark and f'; {remark}'}"


def _zeros(model: nn.Module, spec: DatasetSpec, sides: tuple[int, int]) -> tuple[Any, tuple[int, int]]:
    """An input of zeros as a network gets it, and H and W of it."""
    geometry = geometry_of(model)
    height, width = (geometry.input_for(side - 2 * geometry.margin) for side in sides)
    images = {name: torch.zeros(1, modality.channels, height, width) for name, modality in spec.modalities.items()}
    return next(iter(images.values())) if len(images) == 1 else images, (height, width)


def refuse_weights_without_gradient(
    component: Component, model: nn.Module, spec: DatasetSpec, sides: tuple[int, int]
) -> None:
    """Try what processes that wait for every gradient would fail on in the second step: a layer that no score reaches.

    Args:
        component: that the network was made from; one of ours has no such layer.
        model: the network.
        spec: of the data set.
        sides: H and W of an input.

    Raises:
        SegbenchError: names the weights.
    """
    if _ours(component) and not isinstance(model, Wrapped):
        return
    images, size = _zeros(model, spec, sides)
    training = model.training
    logits = as_heads(model.eval()(images), tuple(spec.heads), size)
    total = torch.stack([each.sum() for each in logits.values()]).sum()
    if total.requires_grad:
        torch.autograd.backward(total)
    model.train(training)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    without = [name for name, weight in trained.items() if weight.grad is None]
    model.zero_grad()
    if without:
        raise SegbenchError(
            f"{len(without)} of {len(trained)} weights of {component.name} get no gradient, as no score that is used "
            f"depends on them ({', '.join(without[:3])}{' ...' if len(without) > 3 else ''})",
            "a strategy that does not wait for the gradient of each",
            "set trainer.strategy=ddp_find_unused_parameters_true",
        )


# Loss


def loss_nodes(config: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every loss of a config, terms of sums too, by its dotted key."""

    def within(key: str, node: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if isinstance(node, Mapping):
            if "_target_" in node:
                yield key, node
            for name, each in node.items():
                if name != "weight_map":
                    yield from within(f"{key}.{name}", each)

    yield from within("loss", config.tree["loss"])


def make_loss(component: Loss, head: HeadSpec, name: str) -> nn.Module:
    """The loss of a head, with its void label if it takes `ignore_index`; tried out if it is not ours.

    Class weights by name become numbers in the order of the head's labels, 1 for a class that is not named.

    Raises:
        SegbenchError: it is no `torch.nn.Module`, fails, takes no class weights, or they name a class that is none.
    """
    key = f"loss.{name}" if name else "loss"
    weights = component.class_weights
    component = Loss.model_validate({"_target_": component.target, **_by_label(component.arguments, head, key)})
    kind = kind_of(component)
    hints, _ = hints_of(kind)
    # Class weights and the like stand as lists in a config.
    given: dict[str, Any] = {
        argument: torch.tensor(value, dtype=torch.float32)
        for argument, value in component.arguments.items()
        if isinstance(value, list) and "Tensor" in str(hints.get(argument))
    }
    if weights is not None:
        given["class_weights"] = of_classes(weights, head, f"{key}.class_weights", 1.0)
        if not taken(kind, class_weights=None):
            raise SegbenchError(
                f"{key}.class_weights for {component.target}, which does not take them",
                "a loss with an argument class_weights (K numbers)",
                f"use the loss's own argument for class weights, and set {key}.class_weights=null",
            )
    given |= {} if "ignore_index" in component.arguments else taken(kind, ignore_index=head.ignore_index)
    made = make(component, **given)
    if not isinstance(made, nn.Module):
        _refuse("loss", component, made, "a torch.nn.Module: forward(logits, target[, weight]) -> a scalar", "wrap it")
    loss = as_loss(made, head.ignore_index)
    check_loss(loss, head.num_classes, component.target if not name else f"{component.target} of {name}")
    return loss


def _by_label(node: Mapping[str, Any], head: HeadSpec, key: str) -> dict[str, Any]:
    """The arguments of a loss, class weights of its terms as lists; without those that are null."""
    made: dict[str, Any] = {}
    for name, value in node.items():
        if name == "class_weights":
            if value is not None:
                made[name] = of_classes(value, head, f"{key}.{name}", 1.0)
        else:
            made[name] = _by_label(value, head, f"{key}.{name}") if isinstance(value, Mapping) else value
    return made


# Optimiser and schedule


def make_optimizer(component: Component, module: nn.Module) -> Optimizer:
    """The optimiser of a network's trained parameters.

    A target that takes `module` gets the network; any other one gets the parameters as its first argument, in the
    groups of `segbench.training.optim.parameter_groups` if the config has one of `PER_LAYER`.

    Raises:
        SegbenchError: it is no `torch.optim.Optimizer`, or one that cannot take the network's memory format.
    """
    kind, arguments = kind_of(component), component.arguments
    if "module" in hints_of(kind)[0]:
        made = make(component, module=module)
    else:
        per_layer = {key: arguments.pop(key) for key in PER_LAYER if key in arguments}
        parameters: Any = [each for each in module.parameters() if each.requires_grad]
        if any(value is not None for value in per_layer.values()):
            own = {key: arguments.get(key, _default(kind, key)) for key in ("lr", "weight_decay")}
            parameters = parameter_groups(
                module, **own, **({"bias_lr_factor": 1.0, "bias_weight_decay": None} | per_layer)
            )
        without = Component.model_validate({"_target_": component.target, **arguments})
        name = next(iter(hints_of(kind)[0]), "params")
        made = make(without, **{name: parameters})
    if not isinstance(made, Optimizer):
        _refuse("optimizer", component, made, "a torch.optim.Optimizer(params, lr=...)", "name an optimiser")
    if isinstance(made, torch.optim.LBFGS) and not all(each.is_contiguous() for each in module.parameters()):
        # It views gradients as flat vectors (`_gather_flat_grad`).
        raise SegbenchError(
            f"optimizer._target_={component.target} with task.channels_last=true",
            "a network whose weights can be viewed as one vector",
            "set task.channels_last=false",
        )
    optimizer: Optimizer = made
    return optimizer


def _default(kind: Any, name: str) -> float:
    import inspect

    default = inspect.signature(kind).parameters[name].default if name in hints_of(kind)[0] else 0.0
    return 0.0 if default is inspect.Parameter.empty else float(default)


def schedule_of(config: Config, higher_is_better: Mapping[str, bool]) -> Schedule:
    """How the schedule is made: `schedule(optimizer, total_steps)`.

    A target that takes `total_steps` gets those of the training. `ReduceLROnPlateau` follows a score of the validation,
    in its direction: that which selects the checkpoint, or `scheduler.monitor`.

    Args:
        config: of the run.
        higher_is_better: the direction of each score of the validation.
    """
    component = config.scheduler
    kind = kind_of(component)
    plateau = isinstance(kind, type) and issubclass(kind, ReduceLROnPlateau)
    monitor = component.monitor or config.monitor
    if not plateau and component.monitor:
        raise SegbenchError(
            f"scheduler.monitor={component.monitor} for {component.name}",
            "a ReduceLROnPlateau, which follows a score",
            "leave out scheduler.monitor",
        )
    if plateau and monitor not in higher_is_better:
        raise SegbenchError(
            f"scheduler.monitor={monitor} of {component.name}",
            f"a score of the validation: {', '.join(higher_is_better) or 'there is none'}",
            "choose one with scheduler.monitor=",
        )

    def schedule(optimizer: Optimizer, total_steps: int) -> Scheduled:
        offered: dict[str, Any] = {}
        if plateau and "mode" not in component.arguments:
            offered["mode"] = "max" if higher_is_better[str(monitor)] else "min"
        elif "total_steps" not in component.arguments and "total_steps" in hints_of(kind)[0]:
            offered["total_steps"] = total_steps
        made = make(component, optimizer=optimizer, **offered)
        if not isinstance(made, LRScheduler):
            _refuse("scheduler", component, made, "a torch.optim.lr_scheduler.LRScheduler(optimizer, ...)", "name one")
        return Scheduled(made, component.interval, component.frequency, monitor if plateau else None)

    return schedule


def check_schedule(component: Scheduler) -> None:
    """Try a schedule that is not ours on one parameter: what it lacks is told before anything is trained.

    Raises:
        SegbenchError: it refuses its arguments.
    """
    if not _ours(component):
        kind = kind_of(component)
        offered = {} if "total_steps" in component.arguments else taken(kind, total_steps=100)
        offered = offered if "total_steps" in hints_of(kind)[0] else {}
        make(component, optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), **offered)


# Metrics


def make_measure(component: Component, name: str, head: HeadSpec) -> Measure | Metric:
    """A measure of a head, or a metric of torchmetrics that is counted beside them.

    Those that ask for class names, excluded classes or the number of classes get the head's.

    Raises:
        SegbenchError: it is neither, or fails.
    """
    kind = kind_of(component)
    if isinstance(kind, type) and issubclass(kind, Metric):
        classes = {} if "num_classes" in component.arguments else {"num_classes": head.num_classes}
        metric: Metric = make(component, **{k: v for k, v in classes.items() if k in hints_of(kind)[0]})
        _check_metric(component, metric, head)
        return metric
    given = arguments_of_head(kind, component.arguments, head)
    made = make(component, name=name, **given)
    if not isinstance(made, Measure):
        lacking = [each for each in ("version", "needs_prob", "needs_raw", "test_only", "infos", "counts", "scores")]
        lacking = [each for each in lacking if not hasattr(made, each)]
        _refuse(
            f"metrics.{name}",
            component,
            made,
            "a torchmetrics.Metric, or a segbench.metrics.measure.Measure: name, version, needs_prob, needs_raw, "
            "test_only, infos(), counts(image), scores(totals)",
            f"add {', '.join(lacking)}",
        )
    measure: Measure = made
    return measure


def _check_metric(component: Component, metric: Metric, head: HeadSpec) -> None:
    prob_KHW = torch.rand(head.num_classes, 4, 6, generator=torch.Generator().manual_seed(0)).softmax(0)
    label_HW = torch.arange(24).reshape(4, 6) % head.num_classes
    label_HW[0, 0] = head.ignore_index
    state = OtherState(metric.clone(), component.name, head.ignore_index)
    try:
        state.update(prob_KHW, label_HW)
        state.scores()
    except Exception as error:
        raise SegbenchError(
            f"metric {component.target} fails on {head.num_classes} classes: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}",
            "a metric of labelled pixels: update(probabilities (N, K), target (N)), for one of Binary... (N) and (N), "
            "of torchmetrics.segmentation labels (1, 1, N); compute() -> a number, or numbers by name or class",
            "correct its arguments",
        ) from error

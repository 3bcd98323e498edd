"""Reading checkpoints: plain containers and tensors, never code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segbench.errors import SegbenchError
from segbench.models.published.state_dict import load_plain, refuse_packed


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, plain containers and tensors only.

    Raises:
        SegbenchError: the file is damaged, or holds other than a checkpoint does.
    """
    try:
        _check_sums(path)
        checkpoint: dict[str, Any] = load_plain(path)
    except Exception as error:
        raise SegbenchError(
            f"{path} cannot be read: {error}", "a whole checkpoint of segbench", "use another with checkpoint=best|last"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "global_step"} <= checkpoint.keys():
        raise SegbenchError(
            f"{path} holds no state_dict with its global_step", "a checkpoint of segbench", "use a run's own checkpoint"
        )
    average = checkpoint.get("averaged_model")
    weights = {**_mapping(checkpoint["state_dict"]), **_mapping({} if average is None else average)}
    counted = [checkpoint["global_step"], checkpoint.get("epoch", 0)]
    if not all(isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()) or not all(
        isinstance(number, int) and number >= 0 for number in counted
    ):
        raise SegbenchError(
            f"{path} holds other than named weights, a step and an epoch",
            "a checkpoint of segbench",
            "use another with checkpoint=best|last",
        )
    return checkpoint


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {None: value}


def _check_sums(path: Path) -> None:
    # torch writes checksums of a zip file's entries but does not check them: a flipped bit would pass as a weight.
    refuse_packed(path)
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")


def newest_whole(paths: Sequence[Path]) -> tuple[Path | None, list[SegbenchError]]:
    """The first checkpoint that can be read.

    Args:
        paths: the newest one first.

    Returns:
        its path, None where `paths` is empty, and what is wrong with those before it.

    Raises:
        SegbenchError: none of them can be read.
    """
    faults: list[SegbenchError] = []
    for path in paths:
        try:
            read_checkpoint(path)
        except SegbenchError as fault:
            faults.append(fault)
        else:
            return path, faults
    if faults:
        folder = paths[0].parent
        best = folder / "best.ckpt"
        copy = f"cp {best} {folder / 'last.ckpt'} continues from the best one; else " if best.is_file() else ""
        raise SegbenchError(
            "; ".join(fault.found for fault in faults), "a whole checkpoint to continue from", f"{copy}start a new run"
        )
    return None, []


def network_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's state dict in a checkpoint, the averaged weights where it has them."""
    if checkpoint.get("averaged_model"):
        return dict(checkpoint["averaged_model"])
    state: Mapping[str, Tensor] = checkpoint["state_dict"]
    return {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}


def load_weights(model: nn.Module, path: Path) -> int:
    """Fill a network from a checkpoint, with the averaged weights where it has them.

    Returns:
        the step at which it was written.

    Raises:
        SegbenchError: the file is damaged, or of another network.
    """
    checkpoint = read_checkpoint(path)
    weights = network_weights(checkpoint)
    expected = model.state_dict()
    differing = [
        name
        for name in sorted(expected.keys() | weights.keys())
        if name not in weights or name not in expected or weights[name].shape != expected[name].shape
    ]
    if differing:
        raise SegbenchError(
            f"{path}: {len(differing)} weights do not fit the network, first {', '.join(differing[:4])}",
            "a checkpoint of the same model config",
            "use the checkpoint's own run: run=RUN",
        )
    model.load_state_dict(weights)
    return int(checkpoint["global_step"])


def keep_what_fits(checkpoint: dict[str, Any], state: Mapping[str, Tensor]) -> None:
    """Fit a checkpoint to another network, in place: weights of its names and shapes stay, others become its own.

    The optimiser's state, which is stored by the weights' numbers, is dropped.

    Args:
        checkpoint: of a training.
        state: the network's state dict as built now, with the same prefix as the checkpoint's.
    """
    saved = checkpoint["state_dict"]

    def fits(name: str, tensor: Tensor) -> bool:
        return name in saved and saved[name].shape == tensor.shape

    checkpoint["state_dict"] = {name: saved[name] if fits(name, own) else own for name, own in state.items()}
    if average := checkpoint.get("averaged_model"):
        own_average = {name.removeprefix("model."): own for name, own in state.items() if name.startswith("model.")}
        checkpoint["averaged_model"] = {
            name: average[name] if fits(f"model.{name}", own) else own.detach().clone()
            for name, own in own_average.items()
        }
    checkpoint["optimizer_states"] = []

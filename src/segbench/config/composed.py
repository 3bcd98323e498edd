"""A composed config as plain containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segbench.errors import SegbenchError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain containers, every interpolation resolved.

    Raises:
        SegbenchError: a key that must be given is not.
    """
    from omegaconf import MissingMandatoryValue, OmegaConf

    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise SegbenchError(f"{key} is not given", f"a value for {key}", f"add {key}=... to the command") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}

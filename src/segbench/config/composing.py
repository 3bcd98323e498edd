"""Composing: Hydra on the packaged configs and a user's own, its errors in three parts."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.config.explain import explained
from segbench.config.hydra_errors import Composing, of_hydra
from segbench.config.installed import installed
from segbench.config.packaged import conf_root
from segbench.config.paper import refuse_overrides
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig


def _experiment_name(*, _root_: DictConfig) -> str:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    # A sweeper asks before Hydra sets its own config, a job after that is removed from the root.
    chosen = OmegaConf.select(_root_, "hydra.runtime.choices.experiment")
    return str(chosen or HydraConfig.get().runtime.choices["experiment"])


@contextlib.contextmanager
def composing(config_name: str, overrides: Sequence[str] = (), own: Path | None = None) -> Iterator[Hydra]:
    """A Hydra application on the packaged configs, the user's and those of installed packages.

    `hydra.compose` works inside, and one that is around it is there again afterwards.

    Args:
        config_name: what is composed.
        overrides: of it; errors are explained by them.
        own: a user's config directory. Its files come before the packaged ones of the same name.

    Raises:
        SegbenchError: anything that Hydra cannot compose or run; only `BaseException`s pass as they are.
    """
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if own is not None and not own.is_dir():
        raise SegbenchError(f"no folder {own}", "a config directory", "correct --config-dir")
    refuse_overrides(overrides)
    OmegaConf.register_new_resolver("experiment_name", _experiment_name, replace=True)
    base, around, config = version.getbase(), GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    version.setbase("1.3")
    path = create_config_search_path(str(conf_root()))
    if own is not None:
        path.prepend("command-line", f"file://{own.absolute()}", SearchPathQuery(provider="main"))
    for each in installed():
        path.prepend(each.provider, f"file://{each.path}", SearchPathQuery(provider="schema"))
    hydra = Hydra.create_main_hydra2(config_name, path)
    try:
        with warnings.catch_warnings():
            # Hydra would skip a missing folder of hydra.searchpath.
            warnings.filterwarnings("error", message=r"provider=.*is not available", category=UserWarning)
            yield hydra
    except SegbenchError:
        raise
    except Exception as error:
        context = Composing(hydra.config_loader, config_name, tuple(overrides))
        raise explained(error, context) or of_hydra(error, config_name) from error
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = around
        HydraConfig.instance().cfg = config
        version.VersionBase.instance().version_base = base

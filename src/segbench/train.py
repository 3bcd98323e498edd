"""`python -m segbench.train`, and `torchrun -m segbench.train`: the command `segbench train`; called, `api.train`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from segbench.api import train

        return train(*arguments, **named)


if __name__ == "__main__":
    from segbench.cli.train import main

    main()
else:
    sys.modules[__name__].__class__ = _Callable

"""`python -m segbench.evaluate`, and `torchrun -m segbench.evaluate`: `segbench evaluate`; called, `api.evaluate`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from segbench.api import evaluate

        return evaluate(*arguments, **named)


if __name__ == "__main__":
    from segbench.cli.evaluate import main

    main()
else:
    sys.modules[__name__].__class__ = _Callable

"""Tab completion: `eval "$(segbench completion bash)"`; overrides are completed by Hydra."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.errors import SegbenchError, say

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

USAGE = """\
usage: eval "$(segbench completion bash|zsh)"
       segbench completion fish | source

Prints the shell function that completes commands, axes, options and keys; add the line to ~/.bashrc,
~/.zshrc or ~/.config/fish/config.fish.
"""
_BASH = r"""_segbench_complete() {
    local line="${COMP_LINE:0:$COMP_POINT}"
    local word="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=($(compgen -o nospace -W "$(segbench completion query "$line" 2>/dev/null)" -- "$word"))
    # Readline cuts words at '=' and ':'.
    if declare -F __ltrim_colon_completions >/dev/null; then __ltrim_colon_completions "$word"; fi
}
export COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _segbench_complete segbench
"""
_ZSH = "autoload -U bashcompinit && bashcompinit\n"
_FISH = """function __segbench_complete
    segbench completion query (commandline -cp) 2>/dev/null
end
complete -c segbench -f -a '(__segbench_complete)'
"""
_OFFERED = ("module", "params", "optimizer")
"""Arguments that a run gives itself."""


def candidates(line: str) -> list[str]:
    """What may follow a command line.

    Args:
        line: up to the cursor, beginning with the command's name.
    """
    from segbench.cli.main import COMMANDS

    words = line.split(" ")
    if len(words) <= 2:
        return [name for name in COMMANDS if name.startswith(words[-1] if len(words) == 2 else "")]
    if words[1] not in ("train", "evaluate", "predict", "export"):
        return []
    own, overrides = _flags(words[2:-1])
    if (named := _named(words[-1])) is not None:
        return named
    from hydra._internal.core_plugins.bash_completion import BashCompletion

    from segbench.config.composing import composing

    with composing(words[1], (), own) as hydra:
        line = " ".join([*(each for each in overrides if "_target_=" not in each), words[-1]])
        found: list[str] = BashCompletion(hydra.config_loader)._query(config_name=words[1], line=line)
        taken = _taken(hydra.config_loader, words[1], overrides, words[-1])
    above = words[-1].lstrip("+").rpartition(".")[0]
    if above and any(each.startswith(f"{above}._target_=") for each in overrides):
        # What the replaced class took is left out.
        found = []
    # Parts that several configs share cannot be picked.
    return list(dict.fromkeys([*(candidate for candidate in found if "=_" not in candidate), *taken]))


def _flags(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The user's own config directory and the overrides of a command line."""
    own = None
    for word, after in itertools.pairwise([*words, ""]):
        name, is_pair, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            own = Path(value if is_pair else after)
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    return own if own is not None and own.is_dir() else None, overrides


def _named(word: str) -> list[str] | None:
    """Classes and functions for a `_target_`; None for any other key."""
    key, is_pair, value = word.partition("=")
    if not is_pair or not key.endswith("_target_"):
        return None
    from segbench.config.outlines import names

    return [f"{key}={name}" for name in names(value)]


def _taken(loader: ConfigLoader, verb: str, overrides: Sequence[str], word: str) -> list[str]:
    """The arguments of the class that stands where a word leads to: `optimizer.` gives `optimizer.lr=` and others."""
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from segbench.config.outlines import arguments
    from segbench.config.own_targets import APART, TRAINER, opened

    prefix = word[: len(word) - len(word.lstrip("+"))]
    above, is_dotted, last = word.lstrip("+").rpartition(".")
    if not is_dotted or "=" in word:
        return []
    try:
        config = loader.load_configuration(verb, opened(list(overrides)), RunMode.MULTIRUN)
        target = OmegaConf.select(config, f"{above}._target_")
    except (HydraException, OmegaConfBaseException, ValueError):
        # Half a command line.
        return []
    names = TRAINER if above == "trainer" else arguments(target) if isinstance(target, str) else ()
    names = [*names, *(sorted(APART.get(above, ())) if names else ())]
    return [f"{prefix}{above}.{name}=" for name in names if name.startswith(last) and name not in _OFFERED]


def main() -> None:
    """The entry point: `bash`, `zsh` or `fish` prints the shell's function, `query LINE` the candidates."""
    arguments = sys.argv[1:]
    scripts = {"bash": _BASH, "zsh": _ZSH + _BASH, "fish": _FISH}
    if arguments and arguments[0] in ("-h", "--help"):
        say(USAGE, end="")
    elif arguments and arguments[0] == "query":
        say("\n".join(candidates(" ".join(arguments[1:]))))
    elif arguments and arguments[0] in scripts:
        say(scripts[arguments[0]], end="")
    else:
        found = " ".join(["segbench completion", *arguments])
        raise SegbenchError(found, "bash, zsh or fish", 'eval "$(segbench completion bash)"')

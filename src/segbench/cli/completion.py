"""Tab completion: `eval "$(segbench completion bash)"`; overrides are completed by Hydra."""

from __future__ import annotations

import sys

from segbench.errors import SegbenchError

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
    from hydra._internal.core_plugins.bash_completion import BashCompletion

    from segbench.config.composing import composing

    with composing(words[1]) as hydra:
        found: list[str] = BashCompletion(hydra.config_loader)._query(config_name=words[1], line=" ".join(words[2:]))
    # Parts that several configs share cannot be picked.
    return [candidate for candidate in found if "=_" not in candidate]


def main() -> None:
    """The entry point: `bash`, `zsh` or `fish` prints the shell's function, `query LINE` the candidates."""
    arguments = sys.argv[1:]
    scripts = {"bash": _BASH, "zsh": _ZSH + _BASH, "fish": _FISH}
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
    elif arguments and arguments[0] == "query":
        print("\n".join(candidates(" ".join(arguments[1:]))))
    elif arguments and arguments[0] in scripts:
        print(scripts[arguments[0]], end="")
    else:
        found = " ".join(["segbench completion", *arguments])
        raise SegbenchError(found, "bash, zsh or fish", 'eval "$(segbench completion bash)"')

"""The command `segbench`: sub-commands, each with its own entry point. Imports nothing heavy."""

from __future__ import annotations

import importlib
import sys

from segbench import __version__
from segbench.cli.entry import boundary
from segbench.errors import SegbenchError, say

COMMANDS = {
    "train": ("segbench.cli.train", "train, then score on the test split"),
    "evaluate": ("segbench.cli.evaluate", "score a run, or a stack of predictions"),
    "predict": ("segbench.cli.predict", "predict images with a run's network"),
    "export": ("segbench.cli.export", "a run's network as an ONNX or torch.export file, checked"),
    "sweep": ("segbench.cli.sweep", "show a sweep's state; resume it, retry failed jobs, send it to W&B"),
    "sync": ("segbench.cli.sync", "send to W&B what runs kept offline"),
    "reproduce": ("segbench.cli.reproduce", "train and score a paper's experiment, compare with its numbers"),
    "data": ("segbench.cli.data", "download a data set or check one, import annotations"),
    "report": ("segbench.cli.report", "a run or a sweep as one HTML file"),
    "compare": ("segbench.cli.compare", "compare runs: settings, scores, intervals, tests"),
    "list": ("segbench.cli.list", "what each config axis offers"),
    "init": ("segbench.cli.init", "a small project of your own that runs at once"),
    "schema": ("segbench.cli.schema", "JSON schemas of config files, for an editor"),
    "doctor": ("segbench.cli.doctor", "what this machine offers a training, and what is wrong with it"),
    "completion": ("segbench.cli.completion", 'tab completion: eval "$(segbench completion bash)"'),
}
_INSTEAD = {"bench": "python benchmarks/run.py NAME, or make bench ARGS=NAME, in a clone"}
"""What does the work of commands of version 0.1.0."""
_HELP_OF_PARTS = ("data", "sweep")
"""Commands whose sub-commands have their own help."""
_EXAMPLES = """\
examples:
  segbench train                                             a first run, about a minute
  segbench train experiment=unet_isbi_em_cpu data.root=DIR   the paper's net on real EM, two CPU cores
  segbench train optimizer.lr=1e-4 trainer.max_steps=100     any key of the config
  segbench train -m seed=0,1,2 optimizer.lr=1e-3,1e-4        a sweep; hydra.launcher.jobs=2 runs two jobs at once
  segbench sweep status|resume|retry DIR                     show its state; resume it
  segbench train --cfg job                                   show the config and exit
  segbench train --config-dir mine experiment=e1             your own configs
  segbench train resume=RUN                                  continue a run in place
  segbench evaluate run=RUN split=test                       score a run
  segbench predict run=RUN input=stack.tif output=DIR        probabilities, page by page
  segbench predict run=RUN input=IN output=OUT format=masks  masks of a folder of images
"""


def usage() -> str:
    """The help text."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    head = f"segbench {__version__}\n\nusage: segbench COMMAND [OVERRIDE ...]\n\ncommands:\n"
    return head + "\n".join(lines) + "\n\n" + _EXAMPLES


@boundary()
def main() -> None:
    """Run the sub-command that sys.argv names."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(usage(), end="")
        return
    if arguments[0] == "--version":
        say(__version__)
        return
    if arguments[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        guess = f"did you mean {near[0]}?" if near else "segbench --help"
        action = _INSTEAD.get(arguments[0], guess)
        raise SegbenchError(f"unknown command {arguments[0]!r}", f"one of {', '.join(COMMANDS)}", action)
    if arguments[0] not in _HELP_OF_PARTS and {"-h", "--help"} & {*arguments[1:]}:
        arguments[1:] = ["--help", *(argument for argument in arguments[1:] if argument not in ("-h", "--help"))]
    module = importlib.import_module(COMMANDS[arguments[0]][0])
    # Lightning starts further ranks by running argv[0] with the same arguments, so it names the entry point's file.
    sys.argv = [str(module.__file__), *arguments[1:]]
    module.main()


if __name__ == "__main__":
    main()

"""`python -m segbench`: the command `segbench`."""

from segbench.cli.main import main

main()

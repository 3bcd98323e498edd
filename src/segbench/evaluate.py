"""`python -m segbench.evaluate`, and `torchrun -m segbench.evaluate`: the command `segbench evaluate`."""

from segbench.cli.evaluate import main

if __name__ == "__main__":
    main()

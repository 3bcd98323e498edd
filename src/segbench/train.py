"""`python -m segbench.train`, and `torchrun -m segbench.train`: the command `segbench train`."""

from segbench.cli.train import main

if __name__ == "__main__":
    main()

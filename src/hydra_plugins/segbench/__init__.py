"""Hydra plugins of segbench: the launcher of sweeps and the search."""

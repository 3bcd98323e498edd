"""Hydra plugins of segbench: the sweep launcher and the search."""

"""Sweeps: many runs, each launched as a separate process, recorded on disk, resumed and searched."""

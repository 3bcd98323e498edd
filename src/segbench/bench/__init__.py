"""Measured speed: every figure is a ratio to a reference that runs in the same process, turn by turn."""

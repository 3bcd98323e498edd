"""Processes, signals, the log, the hardware."""

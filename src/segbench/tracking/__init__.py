"""Weights & Biases, read and written."""

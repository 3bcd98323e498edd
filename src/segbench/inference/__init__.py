"""Overlap tiles, symmetries and the memory they take."""

"""Readers of image and label files."""

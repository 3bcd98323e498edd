"""Drawn electron microscopy: cells, organelles, noise, slices."""

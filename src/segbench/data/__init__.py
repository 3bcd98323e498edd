"""Data sets, augmentation and the one DataModule."""

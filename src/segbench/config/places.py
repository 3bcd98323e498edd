"""Keys whose values are places on this machine: files and folders."""

DATA = ("data.root", "data.images", "data.masks")
"""Where a data set lies; it may move."""
PLACES = (*DATA, "data.lists", "weights.path", "init_from", "loss.weight_map.folder")
"""A value may be a mapping of paths; a loss for each head has its folder below the head's name."""

"""A folder of one's own images: pairs, classes, splits."""

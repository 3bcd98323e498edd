"""The user's own images: pairs, classes, splits."""

"""segbench: experiments in semantic segmentation, from a config to a number that can be defended."""

__version__ = "0.1.0"

"""Configs: where they are, how they are composed, what they may name."""

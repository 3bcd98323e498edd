"""Sweeps: many runs launched as processes of their own, kept on disk, resumed, and searched."""

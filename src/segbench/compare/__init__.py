"""Comparing runs: settings, scores, and whether a difference is more than noise.

`read_runs` -> `group_runs` -> `compare_groups` -> `Comparison`, which the formats show. Nothing here imports torch.
"""

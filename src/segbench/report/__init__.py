"""A run or a sweep as one HTML file that opens offline: `segbench report RUN_OR_SWEEP`.

Like `segbench.compare`, on which it stands, it reads run directories and needs neither torch nor Lightning.
"""

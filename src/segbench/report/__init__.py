"""A run or a sweep as one HTML file that opens offline: `segbench report RUN_OR_SWEEP`.

Like `segbench.compare`, which it uses, it reads run directories without torch and Lightning.
"""

"""What `segbench predict` is made of: inputs, the values a run expects, and the files that are written."""

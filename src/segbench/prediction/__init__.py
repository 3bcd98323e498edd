"""`segbench predict`: inputs, the values a run expects, and the files written."""

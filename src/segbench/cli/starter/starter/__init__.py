"""A segmentation project: a data set, a network, a loss and a callback; `conf/` has the configs that pick them."""

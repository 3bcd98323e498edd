"""Published weights, read without Caffe."""

"""Downloads, unpacking and checks of data sets."""

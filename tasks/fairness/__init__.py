"""Whether a classifier on frozen features serves groups of images equally."""

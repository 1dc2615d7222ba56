"""Reliance of a classifier on an attribute of the images, by accuracy in groups of class and attribute."""

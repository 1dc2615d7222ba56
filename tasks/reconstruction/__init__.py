"""Reconstruction of masked pixels, and generation of images, by a pretrained method."""

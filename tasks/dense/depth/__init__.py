"""Depth of each pixel from frozen features."""

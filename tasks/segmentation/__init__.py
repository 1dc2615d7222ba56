"""Semantic segmentation with MMSegmentation's heads, from a pretrained encoder."""

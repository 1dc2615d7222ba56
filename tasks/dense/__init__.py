"""Frozen dense evaluation: what single patches of a pretrained encoder hold, without training it."""

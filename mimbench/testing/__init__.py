"""What authors of plugins run on what they wrote."""

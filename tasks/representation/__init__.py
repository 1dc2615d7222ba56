"""What the layers of an encoder represent: alike or not, smooth or detailed, in how many directions."""

"""What a method makes of hidden pixels: rebuilt test images against the true ones, and images made from nothing."""

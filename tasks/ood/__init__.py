"""Accuracy of an ImageNet classifier on other test sets: ImageNet-A, -R, -Sketch, -V2, -C and ReaL labels."""

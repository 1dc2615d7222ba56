"""Accuracy on corrupted test images: 15 kinds of noise, blur, weather and compression, in five severities."""

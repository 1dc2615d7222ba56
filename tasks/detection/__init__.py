"""Object detection with MMDetection, from a pretrained encoder."""

from mimbench_tasks.detection import standin

standin.install()

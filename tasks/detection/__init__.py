"""Object detection with MMDetection, from a pretrained encoder."""

from mimbench_tasks.detection import mmcv_extension

mmcv_extension.install()

"""Small video files whose frames are told apart by their brightness."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

STEP = 8
"""Difference in brightness between a frame and the next."""


def write_video(path: Path, frames: int = 24, codec: str = "libx264", size: int = 32, rate: int = 25) -> Path:
    """A grey video; frame i has brightness 16 + STEP * i. It has B-frames and a key frame every ten frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"crf": "10", "bf": "2"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width = stream.height = size
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", 10
        for number in range(frames):
            pixels = np.full((size, size, 3), 16 + STEP * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def brightness(clip) -> list[int]:
    """Numbers of the frames of a clip [C, T, H, W] of such a video."""
    return [round((float(value) - 16) / STEP) for value in clip.float().mean((0, 2, 3))]

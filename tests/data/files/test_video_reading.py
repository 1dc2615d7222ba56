"""Frames of videos by number: exact with B-frames, after seeking, and without time stamps; damaged files say so."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from helpers.video_files import brightness, write_video
from mimbench.data.files.video_reading import UnreadableVideo, count_frames, read_frames


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("b.avi", "mpeg4"), ("c.mkv", "libx264")])
def test_every_frame_is_the_one_asked_for(name, codec, tmp_path):
    path = write_video(tmp_path / name, codec=codec)
    assert count_frames(path) == 24
    for numbers in ([0], [23], [9, 10, 11], [3, 3, 17, 17], [12, 13], list(range(24))):
        clip = read_frames(path, numbers, 3)
        assert clip.shape == (3, len(numbers), 32, 32)
        assert brightness(clip) == numbers


def test_grey_frames_have_one_channel(tmp_path):
    clip = read_frames(write_video(tmp_path / "a.mp4"), [1, 5], 1)
    assert clip.shape == (1, 2, 32, 32)
    assert brightness(clip) == [1, 5]


def test_a_folder_of_frames_is_a_video(tmp_path):
    for number in range(12):
        Image.fromarray(np.full((8, 8), 16 + 8 * number, np.uint8)).save(tmp_path / f"frame_{number:03d}.png")
    assert count_frames(tmp_path) == 12
    assert brightness(read_frames(tmp_path, [2, 2, 11], 1)) == [2, 2, 11]
    with pytest.raises(UnreadableVideo):
        read_frames(tmp_path, [12], 1)


def test_frames_in_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    for number in (1, 2, 10):
        Image.fromarray(np.full((8, 8), 16 + 8 * number, np.uint8)).save(tmp_path / f"{number}.png")
    assert brightness(read_frames(tmp_path, [0, 1, 2], 1)) == [1, 2, 10]
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "11.png")
    with pytest.raises(UnreadableVideo, match="different sizes"):
        read_frames(tmp_path, [0, 3], 1)


def test_frames_that_an_edit_list_leaves_out_are_not_counted(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    trimmed = tmp_path / "b.mp4"
    with av.open(str(path)) as source, av.open(str(trimmed), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts -= 5 * 512  # five frames lie before the start
                packet.dts -= 5 * 512
                packet.stream = stream
                target.mux(packet)
    with av.open(str(trimmed)) as container:
        decoded = sum(1 for _ in container.decode(video=0))
    assert count_frames(trimmed) == decoded < 24
    first = read_frames(trimmed, [0], 3)
    assert brightness(first) == [24 - decoded]


def test_what_is_no_video_is_refused(tmp_path):
    text = tmp_path / "a.mp4"
    text.write_text("no video")
    with pytest.raises(UnreadableVideo, match="Invalid data"):
        count_frames(text)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableVideo, match="has no images"):
        count_frames(tmp_path / "empty")


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(UnreadableVideo):
        count_frames(path)
    whole = write_video(tmp_path / "b.avi", codec="mpeg4")
    whole.write_bytes(whole.read_bytes()[:-1200])
    assert 0 < count_frames(whole) < 24
    with pytest.raises(UnreadableVideo, match="frame 23"):
        read_frames(whole, [23], 3)

"""demo/video_demo.py: a video in, a video with boxes out."""

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.process


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'in.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (96, 64))
    for index in range(6):
        frame = np.full((64, 96, 3), 30, np.uint8)
        cv2.circle(frame, (20 + 8 * index, 32), 12, (0, 0, 255), -1)
        writer.write(frame)
    writer.release()
    return path


def test_video_file(run_tool, checkpoint, video, tmp_path):
    out = tmp_path / 'new' / 'out.mp4'
    arguments = ('--weights', checkpoint, '--out', out, '--score-thr', '0', '--device', 'cpu', '--every', '2')
    result = run_tool('demo/video_demo.py', video, *arguments)
    assert '6 frames' in result.output and 'median of 3' in result.output
    read = cv2.VideoCapture(str(out))
    assert read.get(cv2.CAP_PROP_FRAME_COUNT) == 6 and read.get(cv2.CAP_PROP_FPS) == 10
    frame = read.read()[1]
    assert frame.shape == (64, 96, 3) and (frame.max(axis=-1) > 150).sum() > 600  # more than the disc: boxes


def test_bad_arguments(error_of_tool, checkpoint, tmp_path):
    out = ('--out', tmp_path / 'out.mp4')
    error = error_of_tool('demo/video_demo.py', tmp_path / 'none.mp4', '--weights', checkpoint, *out)
    assert 'must be a video file that exists or the number of a camera' in error
    text = tmp_path / 'text.mp4'
    text.write_text('no video')
    assert 'cannot be opened' in error_of_tool('demo/video_demo.py', text, '--weights', checkpoint, *out)
    error = error_of_tool('demo/video_demo.py', text, '--weights', checkpoint, '--out', tmp_path / 'out.gif')
    assert 'must end with .mp4' in error

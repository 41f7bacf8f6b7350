#!/usr/bin/env python
"""Detect objects in a video or a camera's pictures and write a video with boxes.

    python demo/video_demo.py VIDEO_OR_CAMERA --weights CHECKPOINT --out OUT.mp4 [--model CONFIG]

A camera is a number: 0 is the first one. Ctrl-C, or q in the window of --show, ends it; what was written stays.
"""

import argparse
import time
from pathlib import Path
from typing import Iterator, Union

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import cv2
import numpy as np

from lite_detr_mmdet import Detector, accelerate


def video_source(text: str) -> Union[int, str]:
    """A camera's number, or a video file that exists."""
    if text.isdigit():
        return int(text)
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f'must be a video file that exists or the number of a camera, got {text!r}')
    return text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', type=video_source, help='video file or number of a camera')
    parser.add_argument('--weights', required=True, help='checkpoint file or URL')
    parser.add_argument('--model', help='config file or name of a model (default: the config in the weights)')
    parser.add_argument('--out', type=Path, required=True, help='video to write, .mp4')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score to draw (default: %(default)s)')
    parser.add_argument('--device', help='device to run on (default: a GPU if there is one)')
    parser.add_argument('--every', type=int, default=1, help='detect in every n-th frame (default: %(default)s)')
    parser.add_argument('--max-frames', type=int, help='stop after this many frames')
    parser.add_argument('--show', action='store_true', help='show frames in a window')
    args = parser.parse_args()
    if args.every < 1 or (args.max_frames is not None and args.max_frames < 1):
        parser.error('--every and --max-frames must be at least 1')
    if args.out.suffix.lower() != '.mp4':
        parser.error(f'--out must end with .mp4, got {str(args.out)!r}')
    return args


def frames_of(video: cv2.VideoCapture, limit: Union[int, None]) -> Iterator[np.ndarray]:
    """Frames, (H, W, 3), BGR, until the video ends."""
    count = 0
    while limit is None or count < limit:
        found, frame = video.read()
        if not found:
            return
        count += 1
        yield frame


def draw(frame: np.ndarray, prediction: dict, names: tuple, threshold: float) -> np.ndarray:
    """The frame with boxes, names and scores."""
    frame = frame.copy()
    for box, score, label in zip(prediction['bboxes'], prediction['scores'], prediction['labels']):
        if score < threshold:
            continue
        hue = np.uint8([[[label * 47 % 180, 220, 230]]])
        colour = tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
        left, top, right, bottom = (round(value) for value in box)
        cv2.rectangle(frame, (left, top), (right, bottom), colour, 2)
        text = f'{names[label]} {score:.2f}'
        cv2.putText(frame, text, (left, max(top - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1)
    return frame


def main() -> None:
    args = parse_args()
    video = cv2.VideoCapture(args.input)
    if not video.isOpened():
        raise SystemExit(f'error: {args.input!r} cannot be opened as a video or camera')
    detector = Detector(args.model, args.weights, args.device, show_progress=False)
    if next(detector.model.parameters()).device.type == 'cpu':
        accelerate(detector.model, verbose=False)
    names = detector.model.dataset_meta['classes']
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    args.out.parent.mkdir(parents=True, exist_ok=True)
    writer, seconds, prediction, written = None, [], None, 0
    try:
        for index, frame in enumerate(frames_of(video, args.max_frames)):
            if index % args.every == 0:
                start = time.perf_counter()
                prediction = detector(frame, pred_score_thr=args.score_thr)['predictions'][0]
                seconds.append(time.perf_counter() - start)
            picture = draw(frame, prediction, names, args.score_thr)
            if writer is None:
                size = (frame.shape[1], frame.shape[0])
                writer = cv2.VideoWriter(str(args.out), cv2.VideoWriter_fourcc(*'mp4v'), rate, size)
                if not writer.isOpened():
                    raise SystemExit(f'error: {args.out} cannot be written as a video')
            writer.write(picture)
            written += 1
            if args.show:
                cv2.imshow('lite_detr_mmdet', picture)
                if cv2.waitKey(1) == ord('q'):
                    break
    except KeyboardInterrupt:
        pass
    finally:
        video.release()
        if writer is not None:
            writer.release()
    if not written:
        raise SystemExit(f'error: {args.input!r} holds no frame')
    median = 1000 * float(np.median(seconds[1:] or seconds))  # the first one warms up
    print(f'{written} frames, {median:.0f} ms for a detection (median of {len(seconds)}): {args.out}')


if __name__ == '__main__':
    main()

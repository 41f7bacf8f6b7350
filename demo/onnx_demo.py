#!/usr/bin/env python
"""Detect in images or a video with an exported model: no torch, no MMDetection.

    python demo/onnx_demo.py MODEL.onnx IMAGE_FOLDER_OR_VIDEO OUT_FOLDER [--runtime openvino] [--latency]

Needs numpy, OpenCV, and onnxruntime or openvino. How images are prepared stands in the model's metadata, which
tools/deployment/export_onnx.py writes. A model with the compiled operators as nodes needs their library (--library).
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Collection, Dict, Iterator, Tuple

import cv2
import numpy as np

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv')
LARGEST_SIDE = 8192  # pixels of the model's input: what a file asks for must fit the memory
FAR = 1 << 15  # pixels; OpenCV draws nothing farther away


class OnnxRuntime:
    """A model in ONNX Runtime."""

    def __init__(self, path: Path, threads: int, library: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if library:
            options.register_custom_ops_library(library)
        self.session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        self.shape = self.session.get_inputs()[0].shape

    def __call__(self, images: np.ndarray) -> list:
        return self.session.run(['boxes', 'scores', 'labels'], {'images': images})


class OpenVino:
    """A model in OpenVINO."""

    def __init__(self, path: Path, threads: int, library: str) -> None:
        import openvino

        core = openvino.Core()
        if library:
            core.add_extension(library)
        network = core.read_model(str(path))
        config = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY'}
        if threads:
            config['INFERENCE_NUM_THREADS'] = threads
        self.request = core.compile_model(network, 'CPU', config).create_infer_request()
        self.metadata = {
            key: str(network.get_rt_info(['framework', key]).value)
            for key in ('preprocessing', 'classes')
            if network.has_rt_info(['framework', key])
        }
        self.shape = [size.get_length() if size.is_static else 'dynamic' for size in network.inputs[0].partial_shape]

    def __call__(self, images: np.ndarray) -> list:
        # Not `infer`: with one thread it hides exceptions and returns what was there before (2026.4).
        self.request.start_async({'images': images})
        self.request.wait()
        return [self.request.get_tensor(name).data for name in ('boxes', 'scores', 'labels')]


def prepare(image: np.ndarray, shape: list, preprocessing: dict) -> np.ndarray:
    """An image, (height, width, 3), BGR, as the model's input, (1, 3, H, W)."""
    height, width = image.shape[:2]
    if isinstance(shape[2], int):
        size = (shape[3], shape[2])
    else:
        longest, shortest = sorted(preprocessing['scale'] or (1333, 800), reverse=True)
        factor = min(longest / max(height, width), shortest / min(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = cv2.resize(image, size).astype(np.float32)
    if preprocessing['channels'] == 'RGB':
        image = image[..., ::-1]
    image = (image - np.float32(preprocessing['mean'])) / np.float32(preprocessing['std'])
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)


def detect(model, image: np.ndarray, preprocessing: dict) -> tuple:
    """Boxes in pixels of the image, scores and labels; boxes that are not finite are left out.

    Raises:
        ValueError: If the outputs do not belong together.
    """
    inputs = prepare(image, model.shape, preprocessing)
    boxes, scores, labels = (output[0] for output in model(inputs))
    if scores.ndim != 1 or boxes.shape != (len(scores), 4) or labels.shape != scores.shape:
        shapes = f'{boxes.shape}, {scores.shape} and {labels.shape}'
        raise ValueError(f'the model must return boxes (n, 4), scores (n) and labels (n), got {shapes}')
    scale = np.array([image.shape[1] / inputs.shape[3], image.shape[0] / inputs.shape[2]] * 2, dtype=np.float32)
    kept = np.isfinite(boxes).all(1)
    return boxes[kept] * scale, scores[kept], labels[kept]


def name_of(label: int, classes: list) -> str:
    """Name of a class, or its number where the file has no name for it."""
    return classes[int(label)] if 0 <= label < len(classes) else str(label)


def draw(image: np.ndarray, detections: tuple, classes: list, threshold: float) -> np.ndarray:
    """The image with its detections."""
    image = image.copy()
    for box, score, label in zip(*detections):
        if not score >= threshold:  # true for NaN, too
            continue
        hue = np.uint8([[[int(label) * 47 % 180, 220, 230]]])
        color = tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
        left, top, right, bottom = (round(max(-FAR, min(float(value), FAR))) for value in box)
        cv2.rectangle(image, (left, top), (right, bottom), color, 2)
        text = f'{name_of(label, classes)} {score:.2f}'
        cv2.putText(image, text, (left, max(top - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1)
    return image


def read_pictures(source: Path) -> Iterator[Tuple[str, np.ndarray]]:
    """Name and content of an image or of each image in a folder."""
    if source.is_dir():
        paths = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGES)
        if not paths:
            raise SystemExit(f'error: {source} holds no image ({", ".join(IMAGES)})')
    elif source.is_file():
        paths = [source]
    else:
        raise SystemExit(f'error: must be an image, a folder or a video that exists, got {str(source)!r}')
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise SystemExit(f'error: {path} cannot be read as an image')
        yield path.name, image


def read_frames(video: cv2.VideoCapture, source: Path) -> Iterator[Tuple[str, np.ndarray]]:
    """Number and content of each frame."""
    for index in itertools.count():
        found, frame = video.read()
        if not found:
            if index == 0:
                raise SystemExit(f'error: {source} cannot be read as a video')
            return
        yield str(index), frame


def percentiles(seconds: Collection[float]) -> Dict[str, float]:
    """Percentiles in milliseconds; empty without times."""
    if not seconds:
        return {}
    return {f'p{q}': round(1e3 * float(np.percentile(list(seconds), q)), 2) for q in (50, 90, 99)}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Options on how to run a model."""
    parser.add_argument('--runtime', choices=('onnxruntime', 'openvino'), default='onnxruntime')
    parser.add_argument('--threads', type=int, default=0, help='threads (0: one for each core)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='smallest score that counts (0.3)')
    parser.add_argument('--library', default='', help='library of the compiled operators, for models with their nodes')


def load_model(args: argparse.Namespace) -> tuple:
    """The model that the arguments name, its preprocessing and its classes, all checked."""
    if not args.model.is_file():
        raise SystemExit(f'error: must be a model file that exists, got {str(args.model)!r}')
    model = {'onnxruntime': OnnxRuntime, 'openvino': OpenVino}[args.runtime](args.model, args.threads, args.library)
    try:
        return model, *check_metadata(model.metadata, model.shape)
    except (KeyError, ValueError, RecursionError) as error:
        raise SystemExit(
            f'error: {args.model} must come from export_onnx.py: its metadata are wrong ({error})'
        ) from error


def check_metadata(metadata: Dict[str, str], shape: list) -> tuple:
    """Preprocessing and classes of a model, which a stranger may have written.

    Args:
        metadata (dict[str, str]): The model's metadata, JSON.
        shape (list): Shape of the model's input; what is no number may have any value.

    Raises:
        KeyError: If one is missing.
        ValueError: If one is not what it should be, or the input would not fit the memory.
    """
    classes, preprocessing = json.loads(metadata['classes']), json.loads(metadata['preprocessing'])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError('classes must be a list of names')
    if not isinstance(preprocessing, dict) or preprocessing['channels'] not in ('RGB', 'BGR'):
        raise ValueError('preprocessing must have the channels RGB or BGR')
    for key, lowest in (('mean', -1e6), ('std', 1e-6)):
        if not _are_numbers(preprocessing[key], 3, lowest, 1e6):
            raise ValueError(f'{key} must be three numbers')
    if preprocessing['scale'] and not _are_numbers(preprocessing['scale'], 2, 1, LARGEST_SIDE):
        raise ValueError(f'scale must be two numbers up to {LARGEST_SIDE}')
    sizes = [size for size in shape[2:] if isinstance(size, int)]
    if len(shape) != 4 or not _are_numbers(sizes, len(sizes), 1, LARGEST_SIDE):
        raise ValueError(f'the input must be (1, 3, height, width) of up to {LARGEST_SIDE} pixels, got {shape}')
    return preprocessing, classes


def _are_numbers(values, count: int, lowest: float, highest: float) -> bool:
    is_list = isinstance(values, list) and len(values) == count
    return is_list and all(type(value) in (int, float) and lowest <= value <= highest for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path, help='exported model')
    parser.add_argument('source', type=Path, help='image, folder of images, or video')
    parser.add_argument('out_dir', type=Path, help='folder for pictures (of a video: a video) and detections.json')
    parser.add_argument('--latency', action='store_true', help='print percentiles of the time of one image')
    add_model_arguments(parser)
    args = parser.parse_args()
    model, preprocessing, classes = load_model(args)
    video = (
        cv2.VideoCapture(str(args.source)) if args.source.suffix.lower() in VIDEOS and args.source.is_file() else None
    )
    args.out_dir.mkdir(parents=True, exist_ok=True)
    results, seconds, writer = {}, [], None
    for name, image in read_pictures(args.source) if video is None else read_frames(video, args.source):
        start = time.perf_counter()
        boxes, scores, labels = detect(model, image, preprocessing)
        seconds.append(time.perf_counter() - start)
        kept = scores >= args.score_thr
        results[name] = dict(
            boxes=boxes[kept].round(3).tolist(), scores=scores[kept].tolist(), labels=labels[kept].tolist()
        )
        picture = draw(image, (boxes, scores, labels), classes, args.score_thr)
        if video is None:
            cv2.imwrite(str(args.out_dir / name), picture)
        else:
            if writer is None:
                path, rate = args.out_dir / f'{args.source.stem}.mp4', video.get(cv2.CAP_PROP_FPS) or 25.0
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), rate, picture.shape[1::-1])
            writer.write(picture)
    if writer is not None:
        writer.release()
    (args.out_dir / 'detections.json').write_text(json.dumps(results))
    print(f'{len(results)} images, {sum(len(item["scores"]) for item in results.values())} detections: {args.out_dir}')
    if args.latency:
        steady = seconds[1:] or seconds  # the first one warms up
        described = ', '.join(f'{name}: {value:.1f} ms' for name, value in percentiles(steady).items())
        print(f'{described} of {len(steady)} images')


if __name__ == '__main__':
    main()

#!/usr/bin/env python
"""A page to try a detector in the browser: drop an image, move the threshold.

    python demo/app.py --weights CHECKPOINT [--model CONFIG] [--port 7860]

The page is served on this machine only, unless --host says otherwise, and fetches nothing from elsewhere.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import numpy as np

from lite_detr_mmdet import Detector, accelerate
from lite_detr_mmdet.adapters.optional import require


def make_page(detector: Detector, examples: list) -> Any:
    """The page of a detector, gradio.Blocks."""
    gradio = require('gradio')
    names = detector.model.dataset_meta['classes']

    def detect(image: np.ndarray, threshold: float) -> tuple:
        if image is None:
            raise gradio.Error('Choose an image first.')
        found = detector(np.ascontiguousarray(image[..., ::-1]), pred_score_thr=threshold)['predictions'][0]
        rows = [
            (names[label], score, [round(value) for value in box])
            for box, score, label in zip(found['bboxes'], found['scores'], found['labels'])
            if score >= threshold
        ]
        boxes = [(tuple(box), f'{name} {score:.2f}') for name, score, box in rows]
        return (image, boxes), [[name, round(score, 3), *box] for name, score, box in rows]

    with gradio.Blocks(title='lite_detr_mmdet') as page:
        gradio.Markdown('# lite_detr_mmdet\n\nDetections with scores are predictions, not facts.')
        with gradio.Row():
            with gradio.Column():
                image = gradio.Image(type='numpy', label='Image')
                threshold = gradio.Slider(0, 1, 0.3, step=0.05, label='Lowest score')
                button = gradio.Button('Detect', variant='primary')
                if examples:
                    gradio.Examples([[path] for path in examples], [image])
            with gradio.Column():
                picture = gradio.AnnotatedImage(label='Detections')
                table = gradio.Dataframe(headers=['class', 'score', 'x1', 'y1', 'x2', 'y2'], label='Boxes in pixels')
        button.click(detect, [image, threshold], [picture, table], api_name='detect')
        threshold.release(detect, [image, threshold], [picture, table], api_name=False)
    return page


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', required=True, help='checkpoint file or URL')
    parser.add_argument('--model', help='config file or name of a model (default: the config in the weights)')
    parser.add_argument('--device', help='device to run on (default: a GPU if there is one)')
    parser.add_argument('--examples', type=Path, help='folder of images to offer')
    parser.add_argument('--host', default='127.0.0.1', help='address to serve on (default: %(default)s)')
    parser.add_argument('--port', type=int, default=7860, help='port to serve on (default: %(default)s)')
    args = parser.parse_args()
    if args.examples is not None and not args.examples.is_dir():
        parser.error(f'--examples must be a folder that exists, got {str(args.examples)!r}')
    return args


def main() -> None:
    args = parse_args()
    os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')
    gradio = require('gradio')
    detector = Detector(args.model, args.weights, args.device, show_progress=False)
    if next(detector.model.parameters()).device.type == 'cpu':
        accelerate(detector.model, verbose=False)
    examples = sorted(args.examples.glob('*.[jp][pn]g')) if args.examples else []
    page = make_page(detector, [str(path) for path in examples[:6]])
    # The default theme's fonts come from elsewhere.
    theme = gradio.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace'])
    page.launch(theme=theme, server_name=args.host, server_port=args.port, share=False, quiet=True)


if __name__ == '__main__':
    main()

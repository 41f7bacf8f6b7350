#!/usr/bin/env python
"""Serve an exported model over HTTP, one image after another, and report percentiles of latency.

    python demo/onnx_server.py MODEL.onnx [--port 8000] [--runtime openvino]
    curl --data-binary @image.jpg http://127.0.0.1:8000/detect
    curl http://127.0.0.1:8000/latency

`/detect` answers with boxes (x1, y1, x2, y2 in pixels of the image), scores, labels and names. Latency is the time
from the encoded image to its detections, without the network. It is printed when the server stops, too (Ctrl-C).
"""

import argparse
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Deque, Tuple

# What a client sends is not decoded if it says that it is larger. OpenCV reads this when it is imported.
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(1 << 26))

import cv2
import numpy as np
from onnx_demo import add_model_arguments, detect, load_model, name_of, percentiles

LARGEST_BODY = 32 << 20
KEPT_LATENCIES = 10_000


class Handler(BaseHTTPRequestHandler):
    """Answers one request; the server has the model."""

    server: 'Server'
    timeout = 30  # seconds for a client to send its image

    def do_GET(self) -> None:
        if self.path == '/latency':
            with self.server.lock:
                seconds = list(self.server.seconds)
            self._answer(200, {'count': len(seconds), **percentiles(seconds)})
        else:
            self._answer(404, {'error': f'must be /latency, or POST /detect, got {self.path}'})

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get('Content-Length', ''))
        except ValueError:
            length = -1
        if self.path != '/detect':
            self._answer(404, {'error': f'must be /detect, got {self.path}'})
        elif not 0 < length <= LARGEST_BODY:
            self._answer(413, {'error': f'Content-Length must be from 1 to {LARGEST_BODY}, got {length}'})
        else:
            content = self.rfile.read(length)
            with self.server.lock:
                status, answer = self.server.detect(content)
            self._answer(status, answer)

    def _answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        """Say nothing: a line for each image is no help."""


class Server(ThreadingHTTPServer):
    """Takes one image after another, since the runtime has all threads for each; slow clients keep nobody waiting."""

    def __init__(self, address: tuple, model, preprocessing: dict, classes: list, threshold: float) -> None:
        super().__init__(address, Handler)
        self.model, self.preprocessing, self.classes, self.threshold = model, preprocessing, classes, threshold
        self.seconds: Deque[float] = deque(maxlen=KEPT_LATENCIES)
        self.lock = threading.Lock()  # of model and latencies

    def handle_error(self, request: socket.socket, client_address: tuple) -> None:
        """Say nothing of a client that went away; of a fault in here, what the base class says."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def detect(self, content: bytes) -> Tuple[int, dict]:
        """Status and answer for an encoded image."""
        start = time.perf_counter()
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
        if image is None:
            return 400, {'error': 'the body must be an image that OpenCV can read'}
        try:
            boxes, scores, labels = detect(self.model, image, self.preprocessing)
        except Exception as error:  # whatever the runtime raises: the client gets an answer, the others are served
            height, width = image.shape[:2]
            return 422, {'error': f'the model cannot take an image of {width}x{height} pixels: {error}'}
        self.seconds.append(time.perf_counter() - start)
        kept = scores >= self.threshold
        return 200, dict(
            boxes=boxes[kept].tolist(),
            scores=scores[kept].tolist(),
            labels=labels[kept].tolist(),
            names=[name_of(label, self.classes) for label in labels[kept]],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path, help='exported model')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen at (127.0.0.1: this machine alone)')
    parser.add_argument('--port', type=int, default=8000, help='port to listen at (8000; 0: any that is free)')
    add_model_arguments(parser)
    args = parser.parse_args()
    model, preprocessing, classes = load_model(args)
    # The first call of a runtime is slow: no client should wait for it.
    detect(model, np.zeros((480, 640, 3), np.uint8), preprocessing)
    with Server((args.host, args.port), model, preprocessing, classes, args.score_thr) as server:
        print(f'listening at http://{args.host}:{server.server_port}', flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        print(f'{len(server.seconds)} images, latency in ms: {json.dumps(percentiles(server.seconds))}')


if __name__ == '__main__':
    main()

"""A trace as one HTML page that needs no server and loads nothing."""

import base64
import html
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from ..output_files import prepare_output, write_text
from .attention import AttentionLayer, AttentionTrace
from .attention_choice import strongest_on_level
from .attention_pictures import describe

TEMPLATE = Path(__file__).with_name('attention_page.html')
GRID = 64  # queries of each level that an encoder layer keeps, evenly spread
DECODER_QUERIES = 100
PER_HEAD = 100  # strongest samples of all queries that are kept for each head and level
LONGEST_SIDE = 1280  # of the picture in the page, in pixels
LOWEST, SPAN = -1.0, 3.0  # locations are kept as 16 bits from -1 to 2 image sizes


def _pack(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _pack_points(points: Tensor, size: Tensor) -> str:
    """Pixels (..., 2) as 16-bit numbers."""
    scaled = ((points / size - LOWEST) / SPAN).clamp(0, 1) * 65535
    return _pack(scaled.round().cpu().numpy().astype('<u2'))


def _pack_weights(weights: Tensor) -> str:
    """Weights from 0 to 1 as the square root in 8 bits: small ones keep more of their digits."""
    return _pack((weights.clamp(0, 1).sqrt() * 255).round().cpu().numpy().astype('u1'))


def _grid(layer: AttentionLayer) -> List[int]:
    """Queries of an encoder layer, evenly spread over each level that it updates."""
    assert layer.tokens is not None
    chosen, first = [], 0
    for height, width in layer.level_shapes:
        if layer.tokens.start <= first < layer.tokens.stop:
            columns = min(width, max(1, round((GRID * width / height) ** 0.5)))
            rows = min(height, max(1, GRID // columns))
            for row in np.unique(((np.arange(rows) + 0.5) * height / rows).astype(int)):
                for column in np.unique(((np.arange(columns) + 0.5) * width / columns).astype(int)):
                    chosen.append(int(first - layer.tokens.start + row * width + column))
        first += height * width
    return chosen


def _best(trace: AttentionTrace, layer: AttentionLayer) -> List[int]:
    """Queries of a decoder layer: all, or those whose last reference boxes are nearest to detections."""
    if layer.num_queries <= DECODER_QUERIES:
        return list(range(layer.num_queries))
    found = trace.predictions[0].pred_instances
    boxes = found.bboxes[found.scores.argsort(descending=True)]
    references = trace.decoder[-1].reference_pixels[0]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = torch.cdist(centres, references[:, :2]).argmin(1).tolist()
    others = range(layer.num_queries)
    return list(dict.fromkeys([*nearest, *others]))[:DECODER_QUERIES]


def layer_data(trace: AttentionTrace, layer: AttentionLayer, also: Sequence[int] = ()) -> Dict[str, Any]:
    """What the page holds of one layer.

    Args:
        trace (AttentionTrace): The trace.
        layer (AttentionLayer): One of its layers.
        also (sequence[int]): Queries to keep beside those that the page keeps anyway.
    """
    queries = list(dict.fromkeys([*also, *(_grid(layer) if layer.part == 'encoder' else _best(trace, layer))]))
    size = layer.image_sizes[0]
    samples = layer.of_queries(queries)
    references = layer.reference_pixels[0, queries]
    top = []
    for level in range(len(layer.level_shapes)):
        heads = [strongest_on_level(layer, level, PER_HEAD, head) for head in range(samples.weights.shape[2])]
        top.append(
            dict(
                xy=_pack_points(torch.cat([points.xy for points in heads]), size),
                w=_pack_weights(torch.cat([points.weights for points in heads])),
                perHead=len(heads[0].weights),
            )
        )
    levels = [layer.level_of(query) for query in queries]
    return dict(
        label=describe(layer),
        part=layer.part,
        levels=layer.level_shapes,
        heads=samples.weights.shape[2],
        points=samples.weights.shape[4],
        queries=queries,
        queryLevels=[-1 if level is None else level for level in levels],
        references=_pack_points(references[:, :2], size),
        boxes=_pack_points(references[:, 2:], size) if references.shape[1] == 4 else None,
        xy=_pack_points(layer.to_pixels(samples.locations)[0], size),
        w=_pack_weights(samples.weights[0]),
        top=top,
    )


def _selection_data(trace: AttentionTrace) -> Any:
    if trace.selection is None:
        return None
    chosen = trace.selection.chosen
    return dict(
        levels=trace.selection.level_shapes,
        scores=[_pack((level[0] * 255).round().cpu().numpy().astype('u1')) for level in trace.selection.maps()],
        chosen=None if chosen is None else chosen[0].tolist(),
    )


def _image_data(image: np.ndarray) -> str:
    shrink = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
    if shrink < 1:
        image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return 'data:image/jpeg;base64,' + base64.b64encode(encoded.tobytes()).decode()


def make_page(
    title: str, image: np.ndarray, traces: Dict[str, AttentionTrace], queries: Dict[AttentionLayer, int], count: int
) -> str:
    """The page.

    Args:
        title (str): Its title; it may hold anything.
        image (np.ndarray): The image, (height, width, 3) in BGR.
        traces (dict[str, AttentionTrace]): The trace of each model, by the model's name.
        queries (dict[AttentionLayer, int]): The layer of each model that is shown first, and its query.
        count (int): Samples that are shown at first.
    """
    models = []
    for name, trace in traces.items():
        layers = [*trace.encoder, *trace.decoder]
        first = next(index for index, layer in enumerate(layers) if layer in queries)
        models.append(
            dict(
                name=name,
                first=first,
                layers=[layer_data(trace, layer, [queries[layer]] if layer in queries else []) for layer in layers],
                selection=_selection_data(trace),
            )
        )
    data = dict(
        image=_image_data(image),
        width=image.shape[1],
        height=image.shape[0],
        lowest=LOWEST,
        span=SPAN,
        count=count,
        models=models,
    )
    # Within <script> a string could end the element: no < is left in the JSON.
    text = json.dumps(data, separators=(',', ':')).replace('<', '\\u003c')
    template = TEMPLATE.read_text()
    before, _, rest = template.partition('{{title}}')
    between, _, after = rest.partition('{{data}}')
    return before + html.escape(title) + between + text + after


def write_page(path: Path, page: str) -> None:
    """Write the page; the file is there completely or not at all."""
    write_text(page, prepare_output(path))

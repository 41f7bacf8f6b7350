#!/usr/bin/env python
"""Draw what the deformable attention of a detector attends to in an image (Figure 5 of the paper).

    python tools/analysis_tools/visualize_attention.py IMAGE CONFIG CHECKPOINT --out-dir attention
    python tools/analysis_tools/visualize_attention.py IMAGE CONFIG CHECKPOINT --query 320,240 --part decoder --layer 5
    python tools/analysis_tools/visualize_attention.py IMAGE CONFIG CHECKPOINT --compare CONFIG CHECKPOINT

Writes pictures of one query's strongest samples, of the strongest samples of all queries on each level and of the
query selection, and attention.html, in which layers, heads and levels are switched and a click picks the query. The
detector runs as ever, on the fused operator; weights are worked out beside it.
"""

import argparse
import os
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import mmcv
import numpy as np
from mmengine.logging import MMLogger
from torch import nn

from lite_detr_mmdet.analysis import AttentionLayer, AttentionTrace, trace_attention
from lite_detr_mmdet.analysis.attention_choice import check_query, default_query, find_query
from lite_detr_mmdet.analysis.attention_page import make_page, write_page
from lite_detr_mmdet.analysis.attention_pictures import describe, write_pictures
from lite_detr_mmdet.apis import get_model
from lite_detr_mmdet.apis.fit import check_fit
from lite_detr_mmdet.apis.models import CLASS_BRANCH, load_fitting_weights, read_weights
from lite_detr_mmdet.checkpoint import CheckpointError, DownloadError, cached_weights
from lite_detr_mmdet.utils import existing_checkpoint, existing_config, silence_upstream_warnings


def numbers(count: int):
    """Type of an argument of so many numbers, separated by commas."""

    def parse(text: str) -> Tuple[float, ...]:
        try:
            found = tuple(float(word) for word in text.split(','))
        except ValueError:
            found = ()
        if len(found) != count or not np.isfinite(found).all():
            raise argparse.ArgumentTypeError(f'must be {count} numbers separated by commas, got {text!r}')
        return found

    return parse


def read_image(path: str) -> np.ndarray:
    """An image in BGR; type of a command-line argument."""
    if not os.path.isfile(path):
        raise argparse.ArgumentTypeError(f'must be an image file that exists, got {path!r}')
    image = mmcv.imread(path)
    if image is None:
        raise argparse.ArgumentTypeError(f'{path!r} cannot be read as an image')
    return image


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', metavar='IMAGE', help='image file')
    parser.add_argument('config', metavar='CONFIG', type=existing_config, help='config file or name of a model')
    parser.add_argument(
        'weights', metavar='WEIGHTS', nargs='?', type=existing_checkpoint, help='checkpoint (default: random weights)'
    )
    parser.add_argument('--out-dir', type=Path, required=True, help='folder to write')
    query = parser.add_mutually_exclusive_group()
    query.add_argument('--query', type=numbers(2), metavar='X,Y', help='the query at this pixel of the image')
    query.add_argument('--index', type=int, metavar='N', help='the query of this index in the layer')
    query.add_argument('--box', type=numbers(4), metavar='X1,Y1,X2,Y2', help='the query of this box, in pixels')
    parser.add_argument('--part', choices=['encoder', 'decoder'], default='encoder', help='default: %(default)s')
    parser.add_argument('--layer', type=int, metavar='N', help='layer of this part, from 0 (default: the last)')
    parser.add_argument('--top-k', type=int, default=100, help='samples that are drawn (default: %(default)s)')
    parser.add_argument(
        '--compare',
        nargs='+',
        metavar=('CONFIG', 'WEIGHTS'),
        help='a second model, drawn beside the first, e.g. the host with ordinary attention',
    )
    parser.add_argument('--device', help='device to run on (default: a GPU if there is one)')
    args = parser.parse_args()
    try:
        args.pixels = read_image(args.image)
        args.models = [(args.config, args.weights)]
        if args.compare:
            if len(args.compare) > 2:
                raise argparse.ArgumentTypeError(
                    f'--compare takes a config and weights, got {len(args.compare)} words'
                )
            config, weights = existing_config(args.compare[0]), None
            if len(args.compare) > 1:
                weights = existing_checkpoint(args.compare[1])
            args.models.append((config, weights))
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    if args.top_k < 1:
        parser.error(f'--top-k must be at least 1, got {args.top_k}')
    return args


def load_model(config: str, weights: Optional[str], device: Optional[str]) -> nn.Module:
    """Build a detector and load all of its weights.

    Raises:
        ValueError: If the weights belong to another model.
    """
    if weights is None:
        print(f'{Path(config).stem}: no weights were given, so they are random')
        return get_model(config, device=device)
    state_dict = read_weights(cached_weights(weights))[0]
    num_classes = state_dict[CLASS_BRANCH].shape[0] if CLASS_BRANCH in state_dict else None
    model = get_model(config, num_classes=num_classes, device=device)
    check_fit(model, state_dict)
    load_fitting_weights(model, state_dict)
    return model


def name_models(models: List[Tuple[str, Optional[str]]]) -> List[str]:
    """Names of the models: of their configs, and of their weights where they have the same config."""
    names = [Path(config).stem for config, _ in models]
    if len(set(names)) < len(names):
        names = [f'{name}, {Path(weights).stem if weights else "random"}' for name, (_, weights) in zip(names, models)]
    return names if len(set(names)) == len(names) else [f'{name} ({index + 1})' for index, name in enumerate(names)]


def choose_query(args: argparse.Namespace, trace: AttentionTrace, layer: AttentionLayer) -> int:
    """The query that was asked for."""
    if args.index is not None:
        return check_query(layer, args.index)
    if args.query is None and args.box is None:
        return default_query(trace, layer)
    return find_query(layer, args.query, args.box)


def main() -> None:
    args = parse_args()
    silence_upstream_warnings()
    MMLogger.get_instance('mmengine').setLevel('ERROR')
    traces: Dict[str, AttentionTrace] = {}
    layers: Dict[str, AttentionLayer] = {}
    queries: Dict[AttentionLayer, int] = {}
    try:
        for name, (config, weights) in zip(name_models(args.models), args.models):
            traces[name] = trace_attention(load_model(config, weights, args.device), args.pixels)
            layers[name] = traces[name].layer(args.part, -1 if args.layer is None else args.layer)
            queries[layers[name]] = choose_query(args, traces[name], layers[name])
        pictures = write_pictures(
            args.out_dir, args.pixels, traces, layers, [queries[layer] for layer in layers.values()], args.top_k
        )
        page = args.out_dir / 'attention.html'
        write_page(page, make_page(f'{Path(args.image).name}: attention', args.pixels, traces, queries, args.top_k))
    except (CheckpointError, DownloadError, OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    for name, layer in layers.items():
        x, y = layer.reference_pixels[0, queries[layer], :2].tolist()
        print(f'{name}: {describe(layer)}, query {queries[layer]} at ({x:.0f}, {y:.0f})')
    for path in [*pictures, page]:
        print(f'wrote {path}')


if __name__ == '__main__':
    main()

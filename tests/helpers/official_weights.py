"""Weights and images under the authors' names that belong to ``tests/data/golden/official_*.npz``.

Each weight depends on its name and shape alone, so that no checkpoint has to be stored.
"""

import json
import re
import zlib
from pathlib import Path
from typing import Dict, List

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).resolve().parent.parent / 'data' / 'golden'


def golden_outputs(name: str) -> dict:
    """Arrays of a golden file."""
    return dict(np.load(GOLDEN / f'{name}.npz'))


def golden_shapes(name: str) -> Dict[str, list]:
    """Names and shapes of the authors' model."""
    return json.loads(str(golden_outputs(name)['keys']))


def make_weight(name: str, shape: list) -> Tensor:
    """A weight of moderate size for its kind."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    values = generator.standard_normal(shape).astype(np.float32)
    leaf = name.rsplit('.', 1)[-1]
    if leaf == 'running_var':
        values = 0.75 + 0.5 * generator.random(shape)
    elif leaf == 'running_mean':
        values = 0.1 * values
    elif len(shape) >= 2:
        values = values / np.sqrt(np.prod(shape[1:]))
    elif leaf == 'bias':
        values = values if 'sampling_offsets' in name else 0.1 * values
    else:
        values = 1.0 + 0.1 * values
    return torch.from_numpy(np.asarray(values, np.float32))


def make_weights(shapes: Dict[str, list]) -> Dict[str, Tensor]:
    """All weights of a model; the heads of the decoder's layers are shared in the DINO family."""
    weights = {}
    shared = 'transformer.tgt_embed.weight' in shapes
    for name, shape in shapes.items():
        head = re.match(r'(?:transformer\.decoder\.)?(bbox_embed|class_embed)\.(\d+)\.(.*)', name)
        if head:
            weights[name] = make_weight(f'{head[1]}.{0 if shared else head[2]}.{head[3]}', shape)
        else:
            weights[name] = make_weight(name, shape)
    return weights


def make_images(outputs: dict) -> List[Tensor]:
    """Normalised images, (3, H, W) each."""
    generator = np.random.default_rng(int(outputs['image_seed']))
    sizes = outputs['image_sizes'].tolist()
    return [torch.from_numpy(generator.standard_normal((3, *size)).astype(np.float32)) for size in sizes]

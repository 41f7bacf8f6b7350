#!/usr/bin/env python
"""Generate a detection set of drawn shapes in COCO format: no download, any size, the same for the same seed.

Discs, rotated rectangles and triangles of small, medium and large size (COCO's areas), in colours that hint at the
class, lie over one another on noisy backgrounds, among lines and arcs that belong to no object. Boxes are those of the
exact outlines; pixels are drawn up to one pixel, half of one on average, beyond them.

    python tools/dataset_converters/generate_shapes.py data/shapes --num-train 800 --num-val 150

A larger set of many small objects:

    python tools/dataset_converters/generate_shapes.py data/small_shapes --num-train 20000 --num-val 1000 \\
        --size 256 --max-objects 24 --shares 0.75 0.2 0.05 --smallest 8 --jobs 16
"""

import argparse
import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Dict, List, Tuple

import cv2
import numpy as np
from tqdm import tqdm

CLASSES = ('disc', 'rectangle', 'triangle')
# Share of the objects and range of the longer side in pixels; the bounds lie around COCO's 32**2 and 96**2.
SIZES = dict(small=(0.4, 14, 31), medium=(0.45, 34, 80), large=(0.15, 98, 122))
# Settings that sets of earlier versions do not name.
DEFAULT_SHARES = tuple(share for share, _, _ in SIZES.values())
DEFAULT_SMALLEST = SIZES['small'][1]
MAX_OVERLAP = 0.5  # share of the smaller of two boxes that the other one may cover
SUBPIXEL_BITS = 4  # OpenCV draws at fractions of 1 / 2**4 pixel


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A soft gradient with noise and a few lines and arcs of clutter: (size, size, 3), float32 in [0, 255]."""
    coarse = rng.uniform(60, 190, (3, 3, 1)) + rng.uniform(-20, 20, (3, 3, 3))
    coarse = coarse.astype(np.float32)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(2, 7)):
        color = rng.uniform(0, 255, 3).tolist()
        start, end = rng.integers(0, size, (2, 2)).tolist()
        if rng.random() < 0.5:
            cv2.line(image, start, end, color, int(rng.integers(1, 3)), cv2.LINE_AA)
        else:
            axes = rng.integers(4, size // 3, 2).tolist()
            angle = float(rng.uniform(0, 360))
            cv2.ellipse(image, start, axes, angle, 0, float(rng.uniform(60, 270)), color, 1, cv2.LINE_AA)
    return image


def draw_outline(rng: np.random.Generator, label: int, side: float) -> np.ndarray:
    """Corner points of a shape around the origin whose longer extent is ``side`` pixels: (num_points, 2)."""
    angle = rng.uniform(0, 2 * np.pi)
    if label == 0:
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        points = np.stack([np.cos(angles), rng.uniform(0.75, 1) * np.sin(angles)], -1)
    elif label == 1:
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [1, rng.uniform(0.5, 1)]
    else:
        angles = 2 * np.pi / 3 * np.arange(3) + rng.uniform(-0.25, 0.25, 3)
        points = np.stack([np.cos(angles), np.sin(angles)], -1)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ rotation.T
    return points * side / np.ptp(points, axis=0).max()


def draw_color(rng: np.random.Generator, label: int) -> np.ndarray:
    """A colour, (3,) in BGR, whose hue hints at the class without telling it: the ranges of the classes overlap."""
    hue = (label / len(CLASSES) * 180 + rng.normal(0, 20)) % 180
    hsv = np.array([hue, rng.uniform(90, 255), rng.uniform(90, 255)], dtype=np.uint8)
    return cv2.cvtColor(hsv[None, None], cv2.COLOR_HSV2BGR)[0, 0].astype(np.float64)


def overlap(box: np.ndarray, others: List[np.ndarray]) -> float:
    """Largest share of the smaller box that is covered between ``box`` and one of ``others`` (x1, y1, x2, y2)."""
    shares = [0.0]
    for other in others:
        extent = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
        area = min(np.prod(box[2:] - box[:2]), np.prod(other[2:] - other[:2]))
        shares.append(float(np.prod(extent.clip(min=0)) / area))
    return max(shares)


def draw_image(
    rng: np.random.Generator,
    size: int,
    max_objects: int,
    shares: Tuple[float, float, float] = DEFAULT_SHARES,
    smallest: int = DEFAULT_SMALLEST,
) -> Tuple[np.ndarray, List[Dict]]:
    """Draw one image.

    Args:
        rng (np.random.Generator): Source of everything random.
        size (int): Height and width in pixels.
        max_objects (int): Highest number of objects.
        shares (tuple[float, float, float]): Shares of small, medium and large objects; their sum is 1.
        smallest (int): Least longer side of a small object in pixels.

    Returns:
        tuple[np.ndarray, list[dict]]: The image, (size, size, 3) in uint8, and its objects with ``category_id`` and
        ``bbox`` (x, y, w, h) in pixels.
    """
    image = draw_background(rng, size)
    ranges = [bounds for _, *bounds in SIZES.values()]
    ranges[0] = [smallest, ranges[0][1]]
    wanted = rng.integers(1, max_objects + 1)
    # Large first, so that small objects lie on large ones and not under them.
    sides = sorted((rng.uniform(*ranges[rng.choice(len(ranges), p=shares)]) for _ in range(wanted)), reverse=True)
    boxes, objects = [], []
    for side in sides:
        side = min(side, 0.95 * size)
        label = int(rng.integers(len(CLASSES)))
        for _ in range(10):
            outline = draw_outline(rng, label, side)
            low, high = outline.min(0), outline.max(0)
            points = outline + rng.uniform(-low, size - high)
            box = np.concatenate([points.min(0), points.max(0)])
            if overlap(box, boxes) <= MAX_OVERLAP:
                break
        else:
            continue
        color = draw_color(rng, label)
        # Pixel centres are at whole numbers in OpenCV, half a pixel away from the coordinates of boxes.
        fixed = np.round((points - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(image, [fixed], color.tolist(), cv2.LINE_AA, SUBPIXEL_BITS)
        boxes.append(box)
        bbox = [round(float(value), 2) for value in (*box[:2], *(box[2:] - box[:2]))]
        objects.append(dict(category_id=label + 1, bbox=bbox))
    image += rng.normal(0, rng.uniform(2, 10), image.shape)
    return image.clip(0, 255).astype(np.uint8), objects


def write_image(index: int, folder: Path, seed: int, size: int, **settings) -> List[Dict]:
    """Draw the image of a number and write it; return its objects."""
    stream = sum(map(ord, folder.name))  # splits of one seed differ
    image, objects = draw_image(np.random.default_rng([seed, stream, index]), size, **settings)
    cv2.imwrite(str(folder / f'{index:06d}.png'), image)
    return objects


def generate_split(root: Path, split: str, num_images: int, size: int, jobs: int, **settings) -> None:
    """Write ``root/split/*.png`` and ``root/annotations/split.json``."""
    (root / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    images, annotations = [], []
    write = partial(write_image, folder=root / split, size=size, **settings)
    with ProcessPoolExecutor(jobs) if jobs > 1 else nullcontext() as pool:
        results = pool.map(write, range(num_images), chunksize=16) if pool else map(write, range(num_images))
        contents = list(tqdm(results, desc=f'generate {split}', total=num_images, mininterval=1))
    for index, objects in enumerate(contents):
        images.append(dict(id=index, file_name=f'{index:06d}.png', height=size, width=size))
        for item in objects:
            area = item['bbox'][2] * item['bbox'][3]
            annotations.append(dict(id=len(annotations) + 1, image_id=index, iscrowd=0, area=area, **item))
    categories = [dict(id=index + 1, name=name) for index, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='folder to write')
    parser.add_argument('--num-train', type=int, default=800, help='training images (default: %(default)s)')
    parser.add_argument('--num-val', type=int, default=150, help='validation images (default: %(default)s)')
    parser.add_argument('--size', type=int, default=128, help='height and width in pixels (default: %(default)s)')
    parser.add_argument('--max-objects', type=int, default=6, help='most objects in an image (default: %(default)s)')
    parser.add_argument(
        '--shares',
        type=float,
        nargs=3,
        default=DEFAULT_SHARES,
        metavar=('SMALL', 'MEDIUM', 'LARGE'),
        help='shares of small, medium and large objects (default: %(default)s)',
    )
    parser.add_argument(
        '--smallest', type=int, default=DEFAULT_SMALLEST, help='least side of small objects (default: %(default)s)'
    )
    parser.add_argument('--seed', type=int, default=0, help='same seed, same set (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1, help='processes that draw (default: %(default)s)')
    args = parser.parse_args()
    if min(args.shares) < 0 or abs(sum(args.shares) - 1) > 1e-6:
        parser.error(f'--shares must be three shares whose sum is 1, got {args.shares}')
    if args.smallest > SIZES['small'][2]:
        parser.error(f'--smallest must be at most {SIZES["small"][2]}, got {args.smallest}')
    for name, lowest in dict(num_train=1, num_val=1, size=32, max_objects=1, smallest=4, seed=0, jobs=1).items():
        if getattr(args, name) < lowest:
            parser.error(f'--{name.replace("_", "-")} must be at least {lowest}, got {getattr(args, name)}')
    return args


def main() -> None:
    args = parse_args()
    settings = {name: value for name, value in vars(args).items() if name not in ('root', 'jobs')}
    settings['shares'] = list(args.shares)
    marker = args.root / 'settings.json'
    if args.root.exists() and any(args.root.iterdir()):
        known = dict(shares=list(DEFAULT_SHARES), smallest=DEFAULT_SMALLEST)
        if marker.exists() and {**known, **json.loads(marker.read_text())} == settings:
            print(f'{args.root} holds this set already')
            return
        raise SystemExit(f'{args.root} is not empty and holds something else: remove it or name another folder')
    # Written aside and moved at the end, so that an interrupted run leaves no half of a set.
    unfinished = args.root.with_name(args.root.name + '.partial')
    shutil.rmtree(unfinished, ignore_errors=True)
    for split, num_images in (('train', args.num_train), ('val', args.num_val)):
        generate_split(
            unfinished,
            split,
            num_images,
            size=args.size,
            jobs=args.jobs,
            seed=args.seed,
            max_objects=args.max_objects,
            shares=args.shares,
            smallest=args.smallest,
        )
    (unfinished / 'settings.json').write_text(json.dumps(settings))
    if args.root.exists():
        args.root.rmdir()
    os.replace(unfinished, args.root)
    print(f'wrote {args.num_train} training and {args.num_val} validation images to {args.root}')


if __name__ == '__main__':
    main()

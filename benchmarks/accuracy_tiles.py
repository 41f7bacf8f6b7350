#!/usr/bin/env python
"""Cut the images of HIT-UAV into tiles of full resolution, with sahi: objects as large as they come, at a CPU's price.

    python benchmarks/accuracy_tiles.py data/hit_uav data/hit_uav_tiles

A 640x512 image gives four tiles of 320x256. A box that is cut stays where at least half of it is in the tile. Tiles
without objects are left out of training and validation; all tiles are tested.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from lite_detr_mmdet.adapters.optional import require

TILE = dict(slice_width=320, slice_height=256, overlap_width_ratio=0.0, overlap_height_ratio=0.0)
MIN_AREA_RATIO = 0.5


def cut(source: Path, out: Path) -> None:
    """Write images/ and {train,val,test}.json of tiles; ``out`` appears whole or not at all.

    Raises:
        SystemExit: If ``out`` exists or ``source`` lacks a file.
    """
    if out.exists():
        raise SystemExit(f'{out} exists: remove it or name another folder')
    missing = [name for name in ('train.json', 'val.json', 'test.json') if not (source / name).is_file()]
    if missing:
        raise SystemExit(f'{source} must hold {", ".join(missing)}')
    slicing = require('sahi.slicing', 'sahi')
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        images = Path(scratch) / 'tiles' / 'images'
        for split in ('train', 'val', 'test'):
            tiles, path = slicing.slice_coco(
                str(source / f'{split}.json'),
                str(source / 'images'),
                split,
                str(images),
                ignore_negative_samples=split != 'test',
                min_area_ratio=MIN_AREA_RATIO,
                out_ext='.png',  # no second loss by JPEG
                **TILE,
            )
            shutil.move(path, images.parent / f'{split}.json')
            print(f'{split}: {len(tiles["images"])} tiles, {len(tiles["annotations"])} boxes')
        images.parent.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='folder of HIT-UAV')
    parser.add_argument('out', type=Path, help='new folder')
    args = parser.parse_args()
    cut(args.source, args.out)


if __name__ == '__main__':
    main()

#!/usr/bin/env python
"""Convert a set in YOLO's format to COCO.

    python tools/dataset_converters/yolo_to_coco.py data/bolts_yolo data/bolts

SRC is a data.yaml or the folder that holds it. OUT gets annotations/instances_SPLIT.json and images/ (hard links where
they can be made). Boxes that are broken, doubled or outside are told and left out.
"""

from lite_detr_mmdet.datasets.formats import read_yolo
from lite_detr_mmdet.datasets.formats.convert import run_converter

if __name__ == '__main__':
    run_converter(read_yolo, __doc__)

#!/usr/bin/env python
"""Convert a folder in Pascal VOC's format to COCO.

    python tools/dataset_converters/voc_to_coco.py data/bolts_voc data/bolts

SRC holds Annotations/, JPEGImages/ and ImageSets/Main/{train,val,test}.txt, or XML files beside the images. OUT gets
annotations/instances_SPLIT.json and images/ (hard links where they can be made). Without lists of splits a fifth of
the images is set aside for validation. Boxes that are broken, doubled or outside are told and left out.
"""

from lite_detr_mmdet.datasets.formats import read_voc
from lite_detr_mmdet.datasets.formats.convert import run_converter

if __name__ == '__main__':
    run_converter(read_voc, __doc__, zero_based='boxes count pixels from 0; the format counts from 1')

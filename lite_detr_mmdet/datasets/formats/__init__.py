"""Read detection sets in the formats of annotation tools and write them as COCO."""

from .coco import write_coco_folder
from .detection_set import Box, DetectionSet, FormatError, ImageEntry, Problem
from .split import split_by_content
from .voc import read_voc
from .yolo import read_yolo

__all__ = [
    'Box',
    'DetectionSet',
    'FormatError',
    'ImageEntry',
    'Problem',
    'read_voc',
    'read_yolo',
    'split_by_content',
    'write_coco_folder',
]

"""All checks, one after the other."""

from mmengine.config import Config

from .annotations import check_annotations
from .classes import check_classes, count_objects
from .config import read_splits
from .findings import Report
from .images import check_images


def inspect_config(cfg: Config, read_images: bool = True) -> Report:
    """Inspect the data of a config.

    Args:
        cfg (Config): Config of a detector with data in COCO format.
        read_images (bool): Whether to open the image files. Defaults to True.

    Returns:
        Report: What was found, with a line on each split.
    """
    inspected = read_splits(cfg)
    report = Report(list(inspected.findings))
    report.findings += check_classes(inspected)
    readable = [split for split in inspected.splits if split.content]
    for split in readable:
        counts = ', '.join(f'{name} {count}' for name, count in count_objects(split).items())
        report.summaries.append(
            f'{split.name}: {split.ann_file}, {len(split.content["images"])} images, '
            f'{len(split.content["annotations"])} annotations ({counts})'
        )
        # More objects than queries only hurt where they are to be learned and found.
        report.findings += check_annotations(split, inspected.num_queries)
    if read_images:
        report.findings += check_images(readable)
    return report

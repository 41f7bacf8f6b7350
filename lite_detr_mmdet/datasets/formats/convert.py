"""What the converters' command lines share: splitting, writing, and telling what was found."""

import argparse
from pathlib import Path
from typing import Callable, List, Optional

from ...text import printable
from .coco import to_coco, write_coco_folder, write_json
from .detection_set import DetectionSet, FormatError
from .split import split_by_content

SHOWN_PROBLEMS = 20


def convert(data: DetectionSet, out: Path, val_share: float = 0.2) -> List[str]:
    """Write a set as COCO and describe it.

    A set without splits is divided by content into 'train' and 'val'. An ``out`` that ends in '.json' gets all images
    of all splits in one file, with paths as in the source, and no image is copied.

    Args:
        data (DetectionSet): What was read.
        out (Path): A folder, or a '.json' file.
        val_share (float): Share of the validation images where there are no splits. Defaults to 0.2.

    Returns:
        list[str]: Lines for the user.
    """
    lines = []
    if out.suffix == '.json':
        images = {image.name: image for split in data.splits.values() for image in split}
        write_json(out, to_coco(list(images.values()), data.classes))
        files = [out]
    else:
        if list(data.splits) == ['all']:
            train, val = split_by_content(data.splits['all'], val_share)
            data.splits = dict(train=train, val=val)
            lines.append(f'no lists of splits: {val_share:.0%} of the images, chosen by content, are for validation')
        files = write_coco_folder(data, out)
    lines.append(f'classes: {", ".join(data.classes)}')
    for split, images in data.splits.items():
        counts = data.count_objects(split)
        told = ', '.join(f'{name} {counts[name]}' for name in data.classes)
        empty = sum(not image.boxes for image in images)
        lines.append(f'{split}: {len(images)} images ({empty} without objects), {counts.total()} objects: {told}')
    for where, what in data.problems[:SHOWN_PROBLEMS]:
        lines.append(f'  {where}: {what}')
    if len(data.problems) > SHOWN_PROBLEMS:
        lines.append(f'  ... and {len(data.problems) - SHOWN_PROBLEMS} more')
    lines.append(f'{len(data.problems)} problems' if data.problems else 'no problems')
    return [printable(line) for line in lines + [f'wrote {path}' for path in files]]


def run_converter(
    read: Callable[..., DetectionSet],
    description: Optional[str],
    argv: Optional[List[str]] = None,
    **flags: str,
) -> None:
    """Command line of a converter: ``SRC OUT [--val-share SHARE]`` and flags of the reader.

    Args:
        read (Callable): Reader; gets the source and the flags as keywords.
        description (str, optional): Help of the command.
        argv (list[str], optional): Arguments. Defaults to None, those of the process.
        **flags (str): Names of boolean arguments of the reader, with their help.

    Raises:
        SystemExit: With a message if the source cannot be read.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SRC', type=Path, help='what to read')
    parser.add_argument('out', metavar='OUT', type=Path, help='folder to write, or one .json file')
    parser.add_argument(
        '--val-share',
        type=float,
        default=0.2,
        help='share of the validation images in a set without splits (default: %(default)s)',
    )
    for name, text in flags.items():
        parser.add_argument(f'--{name.replace("_", "-")}', action='store_true', help=text)
    args = parser.parse_args(argv)
    if not 0 < args.val_share < 1:
        parser.error(f'--val-share must be above 0 and below 1, got {args.val_share}')
    try:
        data = read(args.source, **{name: getattr(args, name) for name in flags})
        print(*convert(data, args.out, args.val_share), sep='\n')
    except FormatError as error:
        raise SystemExit(f'{parser.prog}: {error}') from error

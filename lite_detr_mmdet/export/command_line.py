"""Arguments that the commands of export share."""

import argparse
from pathlib import Path

from .attention import ATTENTION_FORMS


def add_export_arguments(parser: argparse.ArgumentParser, suffix: str, attention: str, attention_help: str) -> None:
    """Add the model, the images it takes, the form of its attention, and how the result is compared with it.

    Args:
        parser (argparse.ArgumentParser): Parser of the command.
        suffix (str): Suffix of the file that is written.
        attention (str): Default of ``--attention``, one of ``ATTENTION_FORMS``.
        attention_help (str): Help of ``--attention``.
    """
    parser.add_argument('config', metavar='CONFIG', help='a model of the zoo, a config file, or PACKAGE::CONFIG')
    parser.add_argument(
        'weights', metavar='WEIGHTS', help='checkpoint: a file, a URL, or the name of a model with released weights'
    )
    parser.add_argument('out', metavar=f'OUT{suffix}', type=Path, help='file to write')
    parser.add_argument(
        '--shape', type=int, nargs=2, metavar=('H', 'W'), default=(800, 1333), help='size of the images (800 1333)'
    )
    parser.add_argument('--dynamic', action='store_true', help='let batch, height and width change from call to call')
    parser.add_argument('--batch', type=int, default=1, metavar='N', help='images at a time (1)')
    parser.add_argument('--attention', choices=ATTENTION_FORMS, default=attention, help=attention_help)
    parser.add_argument(
        '--verify', action=argparse.BooleanOptionalAction, default=True, help='compare with the model first (yes)'
    )
    parser.add_argument('--images', type=Path, metavar='FOLDER', help='images to compare with (generated ones)')


def check_export_arguments(args: argparse.Namespace) -> None:
    """Check the size of the images.

    Raises:
        SystemExit: If a side or the batch is not positive.
    """
    if min(*args.shape, args.batch) < 1:
        raise SystemExit(f'error: --shape and --batch must be positive, got {args.shape} and {args.batch}')

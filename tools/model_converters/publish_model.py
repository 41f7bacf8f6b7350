#!/usr/bin/env python
"""Publish a training checkpoint, with a model card beside it.

    python tools/model_converters/publish_model.py SRC OUT_DIR

Keeps weights, config, classes, license, versions and a digest of the log; leaves out the optimizer and the folders of
the run. The digits at the end of the file's name are the first of its SHA-256.
"""

import argparse

from lite_detr_mmdet.apis.publish import publish_model


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SRC', help='checkpoint of a training run or of the converter')
    parser.add_argument('out_dir', metavar='OUT_DIR', help='folder to write to')
    parser.add_argument('--name', help='name of the model (default: that of its config)')
    parser.add_argument('--log', help='scalars.json of the run (default: the newest one beside SRC)')
    parser.add_argument('--fp16', action='store_true', help='keep weights in half precision')
    parser.add_argument(
        '--license', dest='license_name', default='Apache-2.0', help='license of the weights (default: %(default)s)'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace files that already exist')
    return parser.parse_args()


def main() -> None:
    try:
        published = publish_model(**vars(parse_args()))
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    print(f'written: {published.path}, {published.path.stat().st_size / 1e6:.1f} MB')
    print(f'SHA-256: {published.sha256}')
    print(f'model card: {published.card}')


if __name__ == '__main__':
    main()

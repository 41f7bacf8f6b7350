#!/usr/bin/env python
"""Check what a wheel and a source archive hold against the files of this repository.

    python .dev_scripts/check_distributions.py dist/*.whl dist/*.tar.gz

The wheel must hold the package with its compiled operator, and configs, metafiles, tools and demo where mim looks for
them; the source archive every file that git tracks.
"""

import argparse
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import List, Set

ROOT = Path(__file__).resolve().parent.parent
NOT_SHIPPED = {'.gitignore'}
OF_MIM = ('configs/', 'tools/', 'demo/', 'model-index.yml')


def tracked_files() -> Set[str]:
    """Files that git tracks and that are there."""
    listing = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listing.split('\0') if name and (ROOT / name).is_file()}


def check_wheel(path: Path, tracked: Set[str]) -> List[str]:
    """What is wrong with a wheel, a sentence each."""
    with zipfile.ZipFile(path) as file:
        names = set(file.namelist())
    expected = {name for name in tracked if name.startswith('lite_detr_mmdet/')}
    expected |= {f'lite_detr_mmdet/.mim/{name}' for name in tracked if name.startswith(OF_MIM)}
    problems = [f'the wheel lacks {name}' for name in sorted(expected - names)]
    if not any(re.fullmatch(r'lite_detr_mmdet/ops/_C\..*so', name) for name in names):
        problems.append('the wheel lacks the compiled operator')
    extra = {name for name in names - expected if '.dist-info/' not in name and not name.endswith('.so')}
    return problems + [f'the wheel must not hold {name}' for name in sorted(extra)]


def check_source_archive(path: Path, tracked: Set[str]) -> List[str]:
    """What is wrong with a source archive, a sentence each."""
    with tarfile.open(path) as file:
        names = {member.name.partition('/')[2] for member in file.getmembers() if member.isfile()}
    problems = [f'the source archive lacks {name}' for name in sorted(tracked - NOT_SHIPPED - names)]
    generated = {'PKG-INFO', 'setup.cfg'}
    extra = {name for name in names - tracked - generated if '.egg-info/' not in name}
    return problems + [f'the source archive must not hold {name}' for name in sorted(extra)]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('wheel', type=Path)
    parser.add_argument('source_archive', type=Path)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    tracked = tracked_files()
    problems = check_wheel(args.wheel, tracked) + check_source_archive(args.source_archive, tracked)
    if problems:
        raise SystemExit('\n'.join(problems))
    print(f'{args.wheel.name} and {args.source_archive.name} hold what they should')


if __name__ == '__main__':
    main()

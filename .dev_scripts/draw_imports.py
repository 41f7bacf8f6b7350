#!/usr/bin/env python
"""Draw who imports whom in the package, as Mermaid: every arrow points down, to a part of a lower layer.

python .dev_scripts/draw_imports.py                print the picture; fails if parts import each other in a circle
python .dev_scripts/draw_imports.py --page PAGE    write it between the marks of a page
"""

import argparse
import ast
import re
from pathlib import Path
from typing import Dict, Set

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'lite_detr_mmdet'
BEGIN, END = '<!-- written by .dev_scripts/draw_imports.py -->', '<!-- end -->'


def part_of(parts: tuple) -> str:
    """The part of the package that a path or a module below it belongs to."""
    return '/'.join(parts[:2]) if parts[:1] == ('models',) and len(parts) > 1 else (parts or ('',))[0]


def read_imports() -> Dict[str, Set[str]]:
    """For each part, the parts that its files import; what only puts parts together is left out."""
    names = {path.name for path in PACKAGE.iterdir() if (path / '__init__.py').is_file()}
    found: Dict[str, Set[str]] = {}
    for path in PACKAGE.rglob('*.py'):
        relative = path.relative_to(PACKAGE).parts
        if '.mim' in relative or len(relative) == 1 or relative == ('models', '__init__.py'):
            continue
        part = part_of(relative[:-1])
        own = found.setdefault(part, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            if node.level:
                base = (*relative[:-1][: len(relative) - node.level], *(node.module or '').split('.'))
            elif (node.module or '').startswith('lite_detr_mmdet.'):
                base = tuple(node.module.split('.')[1:])
            else:
                continue
            base = tuple(filter(None, base))
            targets = [base] if node.module else [(*base, alias.name) for alias in node.names]
            own.update(part_of(target) for target in targets if target and target[0] in names)
        own.discard(part)
    return found


def find_layers(imports: Dict[str, Set[str]]) -> Dict[str, int]:
    """Layer of each part, 0 for what imports no other.

    Raises:
        ValueError: If parts import each other in a circle.
    """
    layers: Dict[str, int] = {}
    while len(layers) < len(imports):
        ready = [part for part, used in imports.items() if part not in layers and used <= layers.keys()]
        if not ready:
            raise ValueError(f'these parts import each other in a circle: {sorted(imports.keys() - layers.keys())}')
        layers.update({part: max((layers[used] + 1 for used in imports[part]), default=0) for part in ready})
    return layers


def draw(imports: Dict[str, Set[str]]) -> str:
    """The picture as Mermaid, the highest layer first."""
    layers = find_layers(imports)
    order = sorted(imports, key=lambda part: (-layers[part], part))
    lines = [f'    {part.replace("/", "_")}["{part}"]' for part in order]
    lines += [
        f'    {part.replace("/", "_")} --> {used.replace("/", "_")}'
        for part in order
        for used in sorted(imports[part])
    ]
    return '\n'.join(['```mermaid', 'graph TD', *lines, '```'])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--page', type=Path, help='page to write the picture into, between its marks')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        picture = draw(read_imports())
    except ValueError as error:
        raise SystemExit(f'error: {error}') from error
    print(picture)
    if args.page:
        pattern = f'{re.escape(BEGIN)}.*?{re.escape(END)}'
        block = f'{BEGIN}\n\n{picture}\n\n{END}'
        args.page.write_text(re.sub(pattern, lambda _: block, args.page.read_text(), flags=re.DOTALL))


if __name__ == '__main__':
    main()

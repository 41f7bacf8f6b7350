#!/usr/bin/env python
"""Draw how data flows through a Lite detector, and, animated, which tokens each encoder layer updates.

    python .dev_scripts/draw_concepts.py            write docs/data_flow.svg and docs/interleaving.svg
    python .dev_scripts/draw_concepts.py --check    change nothing, fail if they are not up to date

The pictures are of H3L1-(2+1)x3 at 800x1333.
"""

import argparse
from math import ceil
from pathlib import Path
from typing import List

DOCS = Path(__file__).resolve().parent.parent / 'docs'
SHAPE = (800, 1333)
STRIDES = (8, 16, 32, 64)
NUM_LOW_LEVELS = 1
NUM_BLOCKS = 3
UPDATES = 2  # high-level updates of a block, A; the last also updates the low-level tokens
HIGH, LOW, GREY, INK = '#c1272d', '#0071bc', '#dfe3e8', '#1f2933'
SECONDS = 1.2  # for which a layer is shown


def tokens() -> List[int]:
    """Tokens of each level; a level halves the one before, rounded up."""
    return [ceil(SHAPE[0] / stride) * ceil(SHAPE[1] / stride) for stride in STRIDES]


def text(x: float, y: float, words: str, size: int = 13, anchor: str = 'middle', colour: str = INK) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, more: str = '') -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}"{more}/>'


def page(width: int, height: int, title: str, parts: List[str], style: str = '') -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    lines = [f'{head} font-family="sans-serif" role="img">', f'<title>{title}</title>']
    lines += [f'<style>{style}</style>'] if style else []
    return '\n'.join([*lines, box(0, 0, width, height, '#fff'), *parts, '</svg>', ''])


def arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<path d="M{x0:g} {y0:g}L{x1:g} {y1:g}" stroke="{INK}" stroke-width="1.5" marker-end="url(#tip)"/>'


def data_flow() -> str:
    """Image, backbone, neck with four levels, encoder, query selection, decoder, head."""
    tip = f'<path d="M0 0L10 5L0 10z" fill="{INK}"/>'
    marker = '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    parts = [f'<defs>{marker}{tip}</marker></defs>']
    counts = tokens()
    parts += [box(15, 90, 90, 60, GREY), text(60, 117, 'image'), text(60, 135, f'{SHAPE[0]} x {SHAPE[1]}', 11)]
    parts += [box(135, 80, 90, 80, GREY), text(180, 117, 'backbone'), text(180, 135, 'and neck', 11)]
    parts += [arrow(105, 120, 133, 120)]
    for level, (stride, count) in enumerate(zip(STRIDES, counts)):
        colour = LOW if level < NUM_LOW_LEVELS else HIGH
        y, height = (20, 82, 130, 168)[level], (54, 40, 30, 24)[level]
        parts += [
            box(255, y, 135, height, colour),
            text(322, y + height / 2 + 4, f'1/{stride}: {count:,} tokens', 12, colour='#fff'),
        ]
        parts += [arrow(225, 120, 253, y + height / 2), arrow(390, y + height / 2, 423, 120)]
    parts += [text(322, 212, 'low-level in blue, high-level in red', 11)]
    parts += [box(425, 60, 130, 120, '#f3e8d6', f' stroke="{INK}"'), text(490, 90, 'LiteEncoder', 14)]
    parts += [text(490, 112, f'{NUM_BLOCKS} blocks of', 11), text(490, 128, f'{UPDATES} high-level updates', 11)]
    parts += [text(490, 144, 'and 1 low-level update', 11), text(490, 166, 'KDA', 12, colour=HIGH)]
    parts += [
        arrow(555, 120, 583, 120),
        box(585, 85, 90, 70, GREY),
        text(630, 112, 'query'),
        text(630, 130, 'selection'),
    ]
    parts += [arrow(675, 120, 703, 120), box(705, 60, 100, 120, '#f3e8d6', f' stroke="{INK}"')]
    parts += [text(755, 105, 'decoder', 14), text(755, 128, '6 layers', 11), text(755, 148, 'KDA', 12, colour=HIGH)]
    parts += [
        arrow(805, 120, 833, 120),
        box(835, 85, 90, 70, GREY),
        text(880, 112, 'boxes,'),
        text(880, 130, 'scores'),
    ]
    parts += [text(490, 200, 'of this package', 11), text(755, 200, 'attention of this package', 11)]
    return page(940, 225, 'Data flow of a Lite detector', parts)


def interleaving() -> str:
    """Levels as rows, encoder layers as columns; a cell is filled when the layer updates the level."""
    num_layers, counts = NUM_BLOCKS * UPDATES, tokens()
    left, top, width, heights = 150, 60, 92, (70, 44, 30, 22)
    total = num_layers * SECONDS
    shown, hidden = 100 / num_layers, 100 / num_layers + 0.01
    style = f'.now{{opacity:0;animation:now {total:g}s linear infinite}}@keyframes now{{0%,{shown:.2f}%{{opacity:1}}'
    style += f'{hidden:.2f}%,100%{{opacity:0}}}}@media (prefers-reduced-motion:reduce){{.now{{animation:none}}}}'
    parts = [
        text(left + num_layers * width / 2, 22, f'H3L1-({UPDATES}+1)x{NUM_BLOCKS}: which tokens a layer updates', 15)
    ]
    bottom = top + sum(heights) + 18
    for layer in range(num_layers):
        x, last = left + layer * width, layer % UPDATES == UPDATES - 1
        y = top
        parts += [text(x + width / 2, 48, f'layer {layer + 1}', 12)]
        for level, height in enumerate(heights):
            low = level < NUM_LOW_LEVELS
            updated = last or not low
            fill = (LOW if low else HIGH) if updated else GREY
            parts += [box(x + 5, y, width - 10, height, fill)]
            words = 'updated' if updated else 'keys, values'
            parts += [text(x + width / 2, y + height / 2 + 4, words, 11, colour='#fff' if updated else INK)]
            y += height + 6
        frame = f'class="now" style="animation-delay:{layer * SECONDS:g}s" fill="none" stroke="{INK}" stroke-width="3"'
        parts += [
            f'<rect x="{x + 1:g}" y="{top - 5}" width="{width - 2}" height="{bottom - top + 10}" rx="7" {frame}/>'
        ]
        if layer % UPDATES == 0:
            end = x + UPDATES * width - 8
            parts += [f'<path d="M{x + 8} {bottom + 16}L{end:g} {bottom + 16}" stroke="{INK}" stroke-width="2"/>']
            parts += [text((x + end) / 2 + 4, bottom + 34, f'block {layer // UPDATES + 1}', 12)]
    y = top
    for level, height in enumerate(heights):
        share = counts[level] / sum(counts)
        parts += [text(left - 10, y + height / 2 + 4, f'1/{STRIDES[level]}: {share:.1%} of tokens', 12, 'end')]
        y += height + 6
    queries = sum(counts) * NUM_BLOCKS + sum(counts[NUM_LOW_LEVELS:]) * (num_layers - NUM_BLOCKS)
    saved = f'{queries:,} queries in {num_layers} layers; an ordinary encoder has {sum(counts) * num_layers:,}'
    parts += [text(left + num_layers * width / 2, bottom + 60, saved, 12)]
    parts += [
        text(left + num_layers * width / 2, bottom + 78, 'Every layer reads the latest state of all tokens.', 12)
    ]
    return page(left + num_layers * width + 15, bottom + 92, 'Interleaved updates of the encoder', parts, style)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing, fail if a picture is not up to date')
    args = parser.parse_args()
    pictures = {DOCS / 'data_flow.svg': data_flow(), DOCS / 'interleaving.svg': interleaving()}
    for path, picture in pictures.items():
        if args.check and path.read_text() != picture:
            raise SystemExit(f'{path} is not up to date; run .dev_scripts/draw_concepts.py')
        path.write_text(picture)


if __name__ == '__main__':
    main()

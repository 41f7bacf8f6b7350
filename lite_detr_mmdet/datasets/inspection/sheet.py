"""A contact sheet of samples with their boxes: the quickest look at what a detector will be taught."""

import random
from pathlib import Path
from typing import List

from PIL import Image, ImageDraw, ImageFont

from ...output_files import prepare_output, write_whole
from ...text import printable
from ..image_files import open_image
from .annotations import read_box
from .config import Split
from .images import check_image, image_path

TILE = (320, 240)
COLUMNS = 4
COLORS = ('#dc143c', '#1e3cdc', '#008c3c', '#e69500', '#8a2be2', '#00a0b0', '#a0522d', '#ff1493')


def draw_sheet(splits: List[Split], path: Path, samples: int = 12, seed: int = 0) -> Path:
    """Draw random images of each split with boxes and class names.

    Args:
        splits (list[Split]): Splits whose annotation files could be read.
        path (Path): PNG file to write.
        samples (int): Images of each split. Defaults to 12.
        seed (int): Seed of the choice. Defaults to 0.
    """
    tiles = []
    for split in splits:
        usable = [
            image
            for image in split.content['images']
            if (finding := check_image(split, image, image_path(split, image))) is None or finding.kind == 'image-size'
        ]
        usable = random.Random(seed).sample(usable, min(samples, len(usable)))
        tiles += [draw_tile(split, image) for image in usable]
    rows = -(-len(tiles) // COLUMNS) or 1
    sheet = Image.new('RGB', (COLUMNS * TILE[0], rows * TILE[1]), '#202020')
    for index, tile in enumerate(tiles):
        sheet.paste(tile, ((index % COLUMNS) * TILE[0], (index // COLUMNS) * TILE[1]))
    write_whole(prepare_output(path), lambda file: sheet.save(file, format='PNG', optimize=True))
    return path


def draw_tile(split: Split, image: dict) -> Image.Image:
    """One image with its boxes, in a frame of ``TILE`` pixels with its name below."""
    with open_image(image_path(split, image)) as file:
        picture = file.convert('RGB')
    caption = 14
    factor = min(TILE[0] / picture.width, (TILE[1] - caption) / picture.height)
    picture = picture.resize((max(1, int(picture.width * factor)), max(1, int(picture.height * factor))))
    tile = Image.new('RGB', TILE, '#202020')
    tile.paste(picture, (0, 0))
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default()
    categories = {entry.get('id'): str(entry.get('name')) for entry in split.content['categories']}
    order = {name: index for index, name in enumerate(split.classes or categories.values())}
    for annotation in split.content['annotations']:
        box = read_box(annotation)
        if annotation.get('image_id') != image.get('id') or box is None:
            continue
        name = categories.get(annotation.get('category_id'), '?')
        # Names that the config does not have are drawn white: they will be ignored.
        color = COLORS[order[name] % len(COLORS)] if name in order else 'white'
        x, y, width, height = (value * factor for value in box)
        corners = (x, y, max(x, x + width), max(y, y + height))
        # Far outside of the tile there is nothing to draw, and PIL would count every pixel up to there.
        draw.rectangle([max(-9, min(value, TILE[0] + 9)) for value in corners], outline=color, width=1)
        place = (max(-9, min(x + 1, TILE[0])), max(0, min(y - 11, TILE[1])))
        draw.text(place, printable(name)[:52], fill=color, font=font)
    draw.text(
        (2, TILE[1] - caption + 1), printable(f'{split.name}: {image.get("file_name")}')[:52], fill='white', font=font
    )
    return tile

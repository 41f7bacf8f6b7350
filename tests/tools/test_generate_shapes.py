"""tools/dataset_converters/generate_shapes.py: the generated set is what it says."""

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

pytestmark = pytest.mark.process

SCRIPT = 'tools/dataset_converters/generate_shapes.py'
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope='module')
def module():
    spec = importlib.util.spec_from_file_location('generate_shapes', ROOT / SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def content(root: Path) -> dict:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob('*') if path.is_file()}


def generate(run_tool, root: Path, *options, **kwargs):
    return run_tool(SCRIPT, root, '--num-train', 3, '--num-val', 3, '--size', 48, *options, **kwargs)


def test_same_seed_same_bytes(run_tool, tmp_path):
    for name, seed in (('one', 5), ('two', 5), ('three', 6)):
        generate(run_tool, tmp_path / name, '--seed', seed)
    one, two, three = (content(tmp_path / name) for name in ('one', 'two', 'three'))
    assert one == two and len(one) == 3 + 3 + 2 + 1
    assert one['train/000000.png'] != three['train/000000.png']
    assert one['train/000000.png'] != one['val/000000.png']  # nothing held out was trained on


def test_second_call_does_nothing_and_other_settings_are_refused(run_tool, tmp_path):
    root = tmp_path / 'set'
    generate(run_tool, root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    assert 'holds this set already' in generate(run_tool, root).output
    result = generate(run_tool, root, '--seed', 1, check=False)
    assert result.returncode != 0 and 'holds something else' in result.output.splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before


def test_set_of_an_earlier_version_is_known(run_tool, tmp_path):
    root = tmp_path / 'set'
    generate(run_tool, root)
    settings = json.loads((root / 'settings.json').read_text())
    for name in ('shares', 'smallest'):
        del settings[name]
    (root / 'settings.json').write_text(json.dumps(settings))
    assert 'holds this set already' in generate(run_tool, root).output


def test_number_of_processes_changes_nothing(run_tool, tmp_path):
    generate(run_tool, tmp_path / 'one')
    generate(run_tool, tmp_path / 'two', '--jobs', 2)
    assert content(tmp_path / 'one') == content(tmp_path / 'two')


def test_folder_of_somebody_else_is_left_alone(run_tool, tmp_path):
    (tmp_path / 'thesis.txt').write_text('precious')
    result = generate(run_tool, tmp_path, check=False)
    assert result.returncode != 0 and 'remove it or name another folder' in result.output.splitlines()[-1]
    assert content(tmp_path) == {'thesis.txt': b'precious'}


def test_interrupted_run_starts_again(run_tool, tmp_path):
    (tmp_path / 'set.partial' / 'train').mkdir(parents=True)
    (tmp_path / 'set.partial' / 'train' / '000000.png').write_bytes(b'half')
    generate(run_tool, tmp_path / 'set')
    assert not (tmp_path / 'set.partial').exists()
    assert cv2.imread(str(tmp_path / 'set' / 'train' / '000000.png')).shape == (48, 48, 3)


@pytest.mark.parametrize('option', ['--num-train', '--num-val', '--max-objects', '--size', '--smallest', '--jobs'])
def test_bad_numbers(error_of_tool, tmp_path, option):
    assert f'{option} must be at least' in error_of_tool(SCRIPT, tmp_path / 'set', option, 0)
    assert list(tmp_path.iterdir()) == []


def test_bad_sizes(error_of_tool, tmp_path):
    assert '--shares must be three shares' in error_of_tool(SCRIPT, tmp_path, '--shares', 0.5, 0.5, 0.5)
    assert '--smallest must be at most 31, got 32' in error_of_tool(SCRIPT, tmp_path, '--smallest', 32)


def test_annotations_are_coco(shapes, module):
    for split in ('train', 'val'):
        coco = COCO(shapes / 'annotations' / f'{split}.json')
        assert [item['name'] for item in coco.loadCats(coco.getCatIds())] == list(module.CLASSES)
        for image in coco.loadImgs(coco.getImgIds()):
            assert cv2.imread(str(shapes / split / image['file_name'])).shape == (image['height'], image['width'], 3)
            for item in coco.loadAnns(coco.getAnnIds(image['id'])):
                x, y, width, height = item['bbox']
                assert x >= 0 and y >= 0 and x + width <= image['width'] and y + height <= image['height']
                assert width > 2 and height > 2 and item['area'] == pytest.approx(width * height)
    assert json.loads((shapes / 'settings.json').read_text())['size'] == 64


def test_boxes_are_tight_around_the_drawn_pixels(module, monkeypatch):
    masks = []
    draw = cv2.fillPoly

    def fill_poly(image, points, color, line_type, shift):
        mask = np.zeros(image.shape[:2], np.uint8)
        masks.append(draw(mask, points, 255, line_type, shift))
        return draw(image, points, color, line_type, shift)

    monkeypatch.setattr(module.cv2, 'fillPoly', fill_poly)
    distances = []
    for seed in range(40):
        masks.clear()
        _, objects = module.draw_image(np.random.default_rng(seed), 128, 6)
        assert len(masks) == len(objects) > 0
        for mask, item in zip(masks, objects):
            # pixels that the shape covers at least by half
            rows, columns = np.nonzero(mask.max(1) > 127)[0], np.nonzero(mask.max(0) > 127)[0]
            x, y, width, height = item['bbox']
            beyond = (x - columns[0], y - rows[0], columns[-1] + 1 - x - width, rows[-1] + 1 - y - height)
            distances.append(beyond)
    distances = np.array(distances)
    # Whole pixels and OpenCV's antialiasing: about half a pixel beyond the box on every side, the same on all four.
    assert distances.min() > -0.25 and distances.max() < 1.25
    assert np.abs(distances.mean(0) - 0.55).max() < 0.15, distances.mean(0)


def test_objects_of_all_sizes_and_classes(module):
    sides, labels, counts = [], set(), set()
    for seed in range(60):
        image, objects = module.draw_image(np.random.default_rng(seed), 128, 6)
        assert image.dtype == np.uint8 and image.std() > 5
        sides += [np.sqrt(item['bbox'][2] * item['bbox'][3]) for item in objects]
        labels |= {item['category_id'] for item in objects}
        counts.add(len(objects))
    sides = np.array(sides)
    assert labels == {1, 2, 3} and max(counts) >= 5 and min(counts) == 1
    assert (sides < 32).mean() > 0.3 and ((sides > 32) & (sides < 96)).mean() > 0.2 and (sides > 96).sum() >= 3


def test_many_small_objects(module):
    sides = []
    for seed in range(10):
        _, objects = module.draw_image(np.random.default_rng(seed), 256, 24, shares=(0.75, 0.2, 0.05), smallest=8)
        sides += [max(item['bbox'][2:]) for item in objects]
    sides = np.array(sides)
    assert len(sides) > 60 and 7.5 < sides.min() < 14
    assert (sides < 32).mean() > 0.6 and (sides > 96).any()

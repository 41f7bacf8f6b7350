"""demo/image_demo.py: an image or a folder in, pictures and JSON files out."""

import json
import shutil

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.process


@pytest.fixture(scope='module')
def saved_config(trained):
    """The complete config that training left beside the checkpoint: the model of the checkpoint, no options needed."""
    return next(trained.work_dir.glob('*.py'))


def check_output(folder, sources):
    names = sorted(path.stem for path in sources)
    pictures = sorted((folder / 'vis').iterdir())
    assert [path.stem for path in pictures] == names
    assert sorted(path.name for path in (folder / 'preds').iterdir()) == [f'{name}.json' for name in names]
    for source in sources:
        image, picture = cv2.imread(str(source)), cv2.imread(str(folder / 'vis' / source.name))
        assert picture.shape == image.shape and not np.array_equal(picture, image)  # something was drawn
        content = json.loads((folder / 'preds' / f'{source.stem}.json').read_text())
        assert len(content['bboxes']) == len(content['scores']) == len(content['labels']) == 10
        boxes = np.array(content['bboxes'])
        assert boxes.min() >= 0 and boxes.max() <= 64 and (boxes[:, 2:] >= boxes[:, :2]).all()
        assert all(0 < score < 1 for score in content['scores']) and set(content['labels']) <= {0, 1, 2}


def test_folder(run_tool, saved_config, trained, shapes, tmp_path):
    folder = tmp_path / 'images'
    shutil.copytree(shapes / 'val', folder)
    (folder / 'notes.txt').write_text('not an image')
    arguments = ('--weights', trained.checkpoint, '--out-dir', tmp_path / 'out', '--score-thr', 0, '--batch-size', 2)
    result = run_tool('demo/image_demo.py', folder, saved_config, *arguments)
    check_output(tmp_path / 'out', sorted(folder.glob('*.png')))
    assert f'4 images: pictures in {tmp_path / "out"}/vis' in result.output


def test_image(run_tool, saved_config, trained, shapes, tmp_path):
    image = shapes / 'val' / '000002.png'
    arguments = ('--weights', trained.checkpoint, '--score-thr', 0, '--device', 'cpu', '--out-dir')
    run_tool('demo/image_demo.py', image, saved_config, *arguments, tmp_path / 'config')
    run_tool('demo/image_demo.py', image, *arguments, tmp_path / 'none')  # the config of the checkpoint
    contents = []
    for folder in (tmp_path / 'config', tmp_path / 'none'):
        check_output(folder, [image])
        contents.append(json.loads((folder / 'preds' / f'{image.stem}.json').read_text()))
    assert contents[0] == contents[1]


def test_broken_images_of_a_folder_are_named_and_skipped(run_tool, trained, shapes, tmp_path):
    folder = tmp_path / 'images'
    shutil.copytree(shapes / 'val', folder)
    (folder / 'broken.png').write_text('no image')
    arguments = ('--weights', trained.checkpoint, '--out-dir', tmp_path / 'out', '--score-thr', 0)
    result = run_tool('demo/image_demo.py', folder, *arguments)
    assert f'4 images: pictures in {tmp_path / "out"}/vis' in result.output
    assert f'skipped {folder / "broken.png"}' in result.output
    check_output(tmp_path / 'out', sorted(set(folder.glob('*.png')) - {folder / 'broken.png'}))


@pytest.mark.parametrize('what', ['no image', 'empty folder', 'not an image', 'no config', 'no weights', 'text'])
def test_bad_arguments(error_of_tool, saved_config, trained, shapes, tmp_path, what):
    image, config, weights = shapes / 'val' / '000000.png', saved_config, trained.checkpoint
    if what == 'no image':
        image, message = tmp_path / 'none.png', 'must be an image or a folder that exists'
    elif what == 'empty folder':
        image, message = tmp_path, 'must hold images, got the folder'
    elif what == 'not an image':
        image, message = tmp_path / 'text.png', 'cannot be used as an image'
        image.write_text('text')
    elif what == 'no config':
        config, message = tmp_path / 'none.py', 'is not a config file that exists'
    elif what == 'text':
        weights, message = tmp_path / 'text.pth', 'text.pth cannot be read as a checkpoint'
        weights.write_text('text')
    else:
        weights, message = tmp_path / 'none.pth', 'must be a checkpoint file that exists'
    assert message in error_of_tool('demo/image_demo.py', image, config, '--weights', weights)

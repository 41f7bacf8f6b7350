"""tools/quickstart.py: its steps in order on a tiny set, and what it makes of their results."""

import importlib.util
import json
from pathlib import Path

import cv2
import pytest

from lite_detr_mmdet import list_models

ROOT = Path(__file__).resolve().parent.parent.parent


def load_script(name: str):
    """A script of ``tools`` as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / 'tools' / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def quickstart(monkeypatch, tmp_path):
    """The script as a module in an empty folder, with the steps recorded instead of run."""
    module = load_script('quickstart.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['quickstart.py'])
    module.steps = []
    module.map_of_test = 0.6

    def run(script, *arguments):
        module.steps.append((script, *map(str, arguments)))
        work_dir = next(iter(Path('work_dirs').glob('*')), None)
        if script == 'tools/dataset_converters/generate_shapes.py':
            (Path(arguments[0]) / 'val').mkdir(parents=True)
            for index in range(12):
                (Path(arguments[0]) / 'val' / f'{index:06d}.png').write_bytes(b'image')
        elif script == 'tools/train.py':
            work_dir = Path(arguments[arguments.index('--work-dir') + 1])
            work_dir.mkdir(parents=True)
            (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_8.pth'))
        elif script == 'tools/test.py':
            for stamp, value in (('20260101_000000', 0.1), ('20260102_000000', module.map_of_test)):
                folder = work_dir / 'test' / stamp
                folder.mkdir(parents=True)
                names = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
                metrics = {f'coco/bbox_{name}': value for name in names}
                (folder / f'{stamp}.json').write_text(json.dumps(metrics))
        else:
            (work_dir / 'predictions' / 'vis').mkdir(parents=True)
            for path in Path(arguments[0]).iterdir():
                (work_dir / 'predictions' / 'vis' / path.name).write_bytes(b'picture')
        return 60.0

    monkeypatch.setattr(module, 'run', run)
    monkeypatch.setattr(module, 'draw_ground_truth', lambda data_root, file: module.steps.append(('draw', file)))
    return module


def test_steps_and_summary(quickstart, capsys, tmp_path):
    quickstart.main()
    scripts = [step[0] for step in quickstart.steps]
    assert scripts == [
        'tools/dataset_converters/generate_shapes.py',
        'draw',
        'tools/train.py',
        'tools/test.py',
        'demo/image_demo.py',
    ]
    _, _, train, test, demo = quickstart.steps
    assert quickstart.LITE in train and '--resume' in train
    assert test[2].endswith('epoch_8.pth') and demo[4] == test[2]
    assert {path.name for path in tmp_path.iterdir()} == {'data', 'work_dirs'}
    output = capsys.readouterr().out
    assert 'trained in 1.0 minutes' in output and 'mAP     0.600' in output  # of the newest evaluation
    assert output.count('predictions/vis/') == quickstart.NUM_PICTURES


def test_baseline(quickstart, monkeypatch):
    monkeypatch.setattr('sys.argv', ['quickstart.py', '--baseline'])
    quickstart.main()
    assert quickstart.BASELINE in quickstart.steps[2]


def test_seed_has_a_folder_of_its_own(quickstart, monkeypatch):
    monkeypatch.setattr('sys.argv', ['quickstart.py', '--seed', '3'])
    quickstart.main()
    train = quickstart.steps[2]
    assert train[-2:] == ('--cfg-options', 'randomness.seed=3')
    assert train[train.index('--work-dir') + 1].endswith('_seed3')  # else --resume would go on with another seed


def test_fails_below_the_wanted_map(quickstart):
    quickstart.map_of_test = 0.3
    with pytest.raises(SystemExit, match=r'mAP 0\.300 is below 0\.6'):
        quickstart.main()


def test_first_picture_shows_boxes(tmp_path):
    module = load_script('quickstart.py')
    generate = load_script('dataset_converters/generate_shapes.py')
    settings = dict(max_objects=3, shares=(0, 0, 1))
    generate.generate_split(tmp_path / 'shapes', 'val', num_images=9, size=128, jobs=1, seed=0, **settings)
    module.draw_ground_truth(tmp_path / 'shapes', tmp_path / 'new' / 'picture.png')
    picture = cv2.imread(str(tmp_path / 'new' / 'picture.png'))
    assert picture.shape == (2 * 256, 4 * 256, 3)
    for row, column in ((0, 0), (1, 3)):
        tile = picture[256 * row : 256 * (row + 1), 256 * column : 256 * (column + 1)]
        assert any((tile == color).all(-1).sum() > 300 for color in module.COLORS)


def test_step_that_fails_stops_it():
    module = load_script('quickstart.py')
    with pytest.raises(module.subprocess.CalledProcessError):
        module.run('tools/dataset_converters/generate_shapes.py', '--no-such-option')
    assert {module.LITE, module.BASELINE} <= set(list_models())

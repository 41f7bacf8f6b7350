"""From a folder of someone's own data to a config that trains: the commands as a user calls them."""

import json

import numpy as np
import pytest
from helpers.fork_server import ROOT, run_script
from PIL import Image

from lite_detr_mmdet.zoo import get_config

NEW_CONFIG, CONVERT = ROOT / 'tools/misc/new_config.py', ROOT / 'tools/dataset_converters/yolo_to_coco.py'
BASE = 'lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes'


@pytest.fixture
def yolo(tmp_path):
    """Twelve images with a dark square each, in YOLO's format; one label is misplaced."""
    root = tmp_path / 'squares'
    for index in range(12):
        split = 'train' if index < 8 else 'val'
        pixels = np.full((64, 64, 3), 200, np.uint8)
        pixels[16:40, 10 + index : 40 + index] = 40
        image = root / 'images' / split / f'{index}.png'
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(image)
        label = root / 'labels' / split / f'{index}.txt'
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f'0 {(25 + index) / 64} {28 / 64} {30 / 64} {24 / 64}\n')
    (root / 'labels/train/0.txt').write_text('0 0.5 0.5 0 0.3\n')
    (root / 'data.yaml').write_text('train: images/train\nval: images/val\nnames: {0: square}\n')
    return root


def test_three_commands_from_yolo_to_a_trained_model(yolo, tmp_path):
    made = run_script(NEW_CONFIG, 'squares', '--base', BASE, '--out', 'squares.py', cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert '0.txt, line 1: box' in made.stdout and 'has no area: left out' in made.stdout
    assert len((tmp_path / 'squares.py').read_text().splitlines()) <= 15
    cfg = get_config(tmp_path / 'squares.py')
    assert cfg.model.bbox_head.num_classes == 1
    assert cfg.train_dataloader.dataset.metainfo == dict(classes=('square',))  # no palette of the base's classes
    checked = run_script(ROOT / 'tools/misc/check_dataset.py', 'squares.py', '--sheet', 'sheet.png', cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert '0 errors' in checked.stdout and (tmp_path / 'sheet.png').is_file()
    options = [
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'model.encoder.num_layers=2',
        'model.num_queries=20',
    ]
    options += [
        'model.test_cfg.max_per_img=20',
        'train_dataloader.num_workers=0',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
    ]
    trained = run_script(ROOT / 'tools/train.py', 'squares.py', '--cfg-options', *options, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert list((tmp_path / 'work_dirs/squares').glob('epoch_1.pth'))


def test_config_is_not_overwritten_and_errors_name_the_folder(yolo, tmp_path):
    (tmp_path / 'mine.py').write_text('# mine\n')
    words = [NEW_CONFIG, 'squares', '--base', BASE, '--out']
    made = run_script(*words, 'mine.py', cwd=tmp_path)
    assert made.returncode == 2 and 'mine.py already exists' in made.stderr
    assert (tmp_path / 'mine.py').read_text() == '# mine\n'
    (tmp_path / 'empty').mkdir()
    words[1] = 'empty'
    made = run_script(*words, 'other.py', cwd=tmp_path)
    assert made.returncode == 1 and 'empty holds no annotations' in made.stderr
    assert not (tmp_path / 'other.py').exists()


def test_check_exits_with_an_error_and_mends(yolo, tmp_path):
    assert run_script(CONVERT, 'squares', 'coco', cwd=tmp_path).returncode == 0
    path = tmp_path / 'coco/annotations/instances_train.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['bbox'] = [0, 0, 0, 0]
    path.write_text(json.dumps(content))
    words = [NEW_CONFIG, 'coco', '--base', BASE, '--out', 'mine.py']
    assert run_script(*words, cwd=tmp_path).returncode == 0
    checked = run_script(ROOT / 'tools/misc/check_dataset.py', 'mine.py', '--fix', 'fixed', cwd=tmp_path)
    assert checked.returncode == 1 and 'error: empty-box (1): remove the box' in checked.stdout
    assert len(json.loads((tmp_path / 'fixed/instances_train.json').read_text())['annotations']) == 6


def test_class_names_cannot_become_code(yolo, tmp_path):
    names = ['"{{$Q:x\'}}', f',open({str(tmp_path / "ran")!r}, "w"),', '{{fileDirname}}', '{{{{_base_.model}}}}']
    (yolo / 'data.yaml').write_text(json.dumps(dict(train='images/train', val='images/val', names=names)))
    for index in range(8):  # only classes with objects are kept
        label = yolo / f'labels/train/{index}.txt'
        label.write_text(label.read_text() + ''.join(f'{number} 0.5 0.5 0.2 0.2\n' for number in range(len(names))))
    made = run_script(NEW_CONFIG, 'squares', '--base', BASE, '--out', 'mine.py', cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    cfg = get_config(tmp_path / 'mine.py')
    assert not (tmp_path / 'ran').exists()
    assert list(cfg.train_dataloader.dataset.metainfo.classes) == names


def test_commands_of_the_page(yolo, tmp_path):
    """docs/own_data.md as printed, in a folder where the data is; the model is small and the training short."""
    page = (ROOT / 'docs/own_data.md').read_text()
    block = page.split('## In three commands')[1].split('```bash\n')[1].split('```')[0]
    (tmp_path / 'data').mkdir()
    yolo.rename(tmp_path / 'data/mine')
    (tmp_path / 'tools').symlink_to(ROOT / 'tools')
    commands = block.strip().splitlines()
    assert len(commands) == 3
    small = ['max_epochs=1', 'train_cfg.val_interval=1', 'model.num_queries=20', 'model.test_cfg.max_per_img=20']
    small += ['train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
    small += ['val_dataloader.persistent_workers=False', 'train_dataloader.batch_size=2']
    small += ['model.backbone.base_channels=8', 'model.neck.in_channels=[16,32,64]']
    for line in commands:
        program, script, *words = line.replace('lite-dino-4scale_h3l1-2p1x3_r50', BASE).split()
        assert program == 'python' and (tmp_path / script).is_file()
        extra = ['--cfg-options', *small] if script.endswith('train.py') else []
        result = run_script(tmp_path / script, *words, *extra, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert (tmp_path / 'work_dirs/samples.png').is_file() and (tmp_path / 'work_dirs/mine/epoch_1.pth').is_file()

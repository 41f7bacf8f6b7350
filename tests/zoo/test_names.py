"""Models by name: every form of a name, everywhere the same answer and the same error."""

from pathlib import Path

import pytest

import lite_detr_mmdet
from lite_detr_mmdet import zoo
from lite_detr_mmdet.zoo import names

ROOT = Path(__file__).resolve().parents[2]
NAME = 'lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco'
FILE = ROOT / 'configs' / 'lite_dino' / f'{NAME}.py'


def test_every_config_is_a_model():
    files = {path.stem for path in (ROOT / 'configs').glob('*/*.py') if path.parent.name != '_base_'}
    assert set(lite_detr_mmdet.list_models()) == files and NAME in files


def test_patterns():
    found = lite_detr_mmdet.list_models('lite-dino*swin-t*')
    assert found and all(name.startswith('lite-dino') and 'swin-t' in name for name in found)
    assert lite_detr_mmdet.list_models('nothing*') == []


def test_only_models_with_weights(monkeypatch):
    models = zoo.ShippedModel('a', Path('a.py')), zoo.ShippedModel('b', Path('b.py'), weights='http://x/b.pth')
    monkeypatch.setattr(names, 'shipped_models', lambda: {model.name: model for model in models})
    assert lite_detr_mmdet.list_models() == ['a', 'b'] and lite_detr_mmdet.list_models(pretrained=True) == ['b']


@pytest.mark.parametrize(
    'name, expected',
    [
        (NAME, NAME),
        (f'{NAME}.py', NAME),  # as mim lists it
        ('lite-dino-4scale_h3l1-2p1x3_r50', NAME),  # also for 12 and 24 epochs
        ('lite-dino-4scale_h2l2-2p1x3_swin-t', 'lite-dino-4scale_h2l2-2p1x3_swin-t_8xb2-36e_coco'),
        (f'lite_detr_mmdet::lite_dino/{NAME}.py', NAME),
        (FILE, NAME),
    ],
)
def test_names(name, expected):
    assert zoo.find_config(name).stem == zoo.find_model(name).name == expected


def test_configs_that_are_not_shipped_here(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = 'lite_detr_mmdet::lite_dino/{NAME}.py'")
    assert zoo.find_config(path) == path and zoo.find_model(path) is None
    assert lite_detr_mmdet.get_config(path).model == lite_detr_mmdet.get_config(NAME).model
    stock = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
    assert lite_detr_mmdet.get_config(stock).model.type == 'DINO' and zoo.find_model(stock) is None


def test_file_in_the_current_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(f'{NAME}.py').write_text('model = dict(type="Mine")')
    assert lite_detr_mmdet.get_config(f'{NAME}.py').model.type == 'Mine'
    assert lite_detr_mmdet.get_config(NAME).model.type == 'LiteDINO'


def test_recipe_with_weights_is_preferred(monkeypatch):
    recipes = [
        zoo.ShippedModel('m_r50_8xb2-12e_coco', Path('12e.py'), weights='http://x'),
        zoo.ShippedModel('m_r50_8xb2-36e_coco', Path('36e.py')),
    ]
    monkeypatch.setattr(names, 'shipped_models', lambda: {model.name: model for model in recipes})
    assert zoo.find_config('m_r50') == Path('12e.py')


def test_recipe_for_coco_comes_before_weights_of_other_data(monkeypatch):
    recipes = [
        zoo.ShippedModel('m_r50_8xb2-12e_coco', Path('coco.py')),
        zoo.ShippedModel('m_r50_1xb2-36e_mine', Path('mine.py'), weights='weights/mine.pth'),
    ]
    monkeypatch.setattr(names, 'shipped_models', lambda: {model.name: model for model in recipes})
    assert zoo.find_config('m_r50') == Path('coco.py')


@pytest.mark.parametrize(
    'name, reason, near',
    [
        ('lite-dino-4scale_h3l1-2p1x3_r5', 'is not a model', 'lite-dino-4scale_h3l1-2p1x3_r50'),
        ('lite_dino_4scale_h3l1-2p1x3_r50', 'is not a model', 'lite-dino-4scale_h3l1-2p1x3_r50'),
        # leaves the backbone open
        ('lite-dino-4scale_h3l1-2p1x3', 'is not a model', 'lite-dino-4scale_h3l1-2p1x3_r50'),
        ('Lite-DINO_H3L1-2p1x3_R50', 'is not a model', 'lite-dino-4scale_h3l1-2p1x3_r50'),
        (f'configs/{NAME}s.py', 'is not a config file that exists', NAME),
        (f'lite_detr_mmdet::{NAME}.py', 'is not a config of lite_detr_mmdet', f'lite_detr_mmdet::lite_dino/{NAME}.py'),
        ('mmdet::dino/dino-4scale_r50.py', 'is not a config of mmdet', 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'),
    ],
)
def test_wrong_name(name, reason, near):
    with pytest.raises(zoo.ConfigNotFoundError) as error:
        lite_detr_mmdet.get_config(name)
    message = str(error.value)
    assert message.startswith(repr(name)) and reason in message
    assert near in message.partition('did you mean ')[2].partition('?')[0].split(', ')
    assert 'list_models() gives all' in message
    assert isinstance(error.value, ValueError) and isinstance(error.value, FileNotFoundError)


def test_package_that_is_not_installed():
    with pytest.raises(zoo.ConfigNotFoundError, match="the package 'mmnothing' is not installed"):
        zoo.find_config('mmnothing::a.py')
    with pytest.raises(zoo.ConfigNotFoundError, match="the package 'yaml' ships no configs"):
        zoo.find_config('yaml::a.py')


def test_nothing_outside_of_the_configs_is_found():
    with pytest.raises(zoo.ConfigNotFoundError):
        zoo.find_config('lite_detr_mmdet::../setup.py')


def test_names_of_the_package():
    assert all(getattr(lite_detr_mmdet, name) is not None for name in lite_detr_mmdet.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        _ = lite_detr_mmdet.no_such

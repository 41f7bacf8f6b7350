"""Models by name."""

from pathlib import Path

import pytest

import lite_detr_mmdet
from lite_detr_mmdet.apis import zoo

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = 'lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco'


def test_every_config_is_a_model():
    names = {path.stem for path in (ROOT / 'configs').glob('*/*.py') if path.parent.name != '_base_'}
    assert set(lite_detr_mmdet.list_models()) == names and NAME in names


def test_patterns():
    names = lite_detr_mmdet.list_models('lite-dino*swin-t*')
    assert names and all(name.startswith('lite-dino') and 'swin-t' in name for name in names)
    assert lite_detr_mmdet.list_models('nothing*') == []


def test_only_models_with_weights(monkeypatch):
    first = zoo.ZooModel('a', Path('a.py'), None), zoo.ZooModel('b', Path('b.py'), 'http://x/b.pth')
    monkeypatch.setattr(zoo, 'zoo_models', lambda: {model.name: model for model in first})
    assert lite_detr_mmdet.list_models() == ['a', 'b'] and lite_detr_mmdet.list_models(pretrained=True) == ['b']


@pytest.mark.parametrize(
    'name, expected',
    [
        (NAME, NAME),
        ('lite-dino-4scale_h3l1-2p1x3_r50', NAME),  # also for 12 and 24 epochs
        ('lite-dino-4scale_h2l2-2p1x3_swin-t', 'lite-dino-4scale_h2l2-2p1x3_swin-t_8xb2-36e_coco'),
    ],
)
def test_names(name, expected):
    assert zoo.find_model(name).name == expected


def test_recipe_with_weights_is_preferred(monkeypatch):
    names = ('m_r50_8xb2-12e_coco', 'm_r50_8xb2-36e_coco')
    models = {name: zoo.ZooModel(name, Path(name), 'http://x' if '12e' in name else None) for name in names}
    monkeypatch.setattr(zoo, 'zoo_models', lambda: models)
    assert zoo.find_model('m_r50').name == names[0]


@pytest.mark.parametrize(
    'name, near',
    [
        ('lite-dino-4scale_h3l1-2p1x3_r5', 'lite-dino-4scale_h3l1-2p1x3_r50'),
        ('lite_dino_4scale_h3l1-2p1x3_r50', 'lite-dino-4scale_h3l1-2p1x3_r50'),
        ('lite-dino-4scale_h3l1-2p1x3', 'lite-dino-4scale_h3l1-2p1x3_r50'),  # leaves the backbone open
        ('Lite-DINO', 'lite-dino'),
    ],
)
def test_wrong_name(name, near):
    with pytest.raises(
        ValueError, match=f'{name!r} is not a model of lite_detr_mmdet; the nearest names are .*{near}'
    ):
        lite_detr_mmdet.get_config(name)


def test_config_by_name_path_and_package(tmp_path):
    expected = lite_detr_mmdet.get_config(NAME).model
    assert lite_detr_mmdet.get_config(f'lite_detr_mmdet::lite_dino/{NAME}.py').model == expected
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = 'lite_detr_mmdet::lite_dino/{NAME}.py'")
    assert lite_detr_mmdet.get_config(path).model == expected
    assert lite_detr_mmdet.get_config('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py').model.type == 'DINO'
    with pytest.raises(FileNotFoundError, match='config file that exists'):
        lite_detr_mmdet.get_config(tmp_path / 'none.py')


def test_names_of_the_package():
    assert set(lite_detr_mmdet.__all__) <= {
        *dir(lite_detr_mmdet),
        'Detector',
        'get_config',
        'get_model',
        'list_models',
    }
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        _ = lite_detr_mmdet.no_such

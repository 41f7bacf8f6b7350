"""Models with weights: what is loaded, what is not, and that it is said."""

import pytest
import torch
from mmdet.apis import inference_detector
from mmengine.config import Config

import lite_detr_mmdet
from lite_detr_mmdet.apis import models
from lite_detr_mmdet.zoo import ShippedModel, names


@pytest.fixture
def printed(monkeypatch) -> list:
    """What is printed; the logger itself keeps the output stream of whichever test came first."""
    lines = []
    monkeypatch.setattr(models, 'print_log', lambda text, logger: lines.append(text))
    return lines


def test_model_with_weights(small_config, checkpoint, printed):
    model = lite_detr_mmdet.get_model(small_config, pretrained=checkpoint, device='cpu')
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not model.training and model.dataset_meta['classes'] == ('disc', 'rectangle', 'triangle')
    assert f'{len(weights)} weights loaded' in printed[0]
    torch.manual_seed(0)
    result = inference_detector(model, torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8).numpy())
    assert len(result.pred_instances) == 10


def test_other_classes_start_anew(small_config, checkpoint, printed):
    model = lite_detr_mmdet.get_model(small_config, pretrained=str(checkpoint), num_classes=5, device='cpu')
    (output,) = printed
    for name in (
        'bbox_head.cls_branches.0.weight',
        'bbox_head.cls_branches.1.bias',
        'dn_query_generator.label_embedding',
    ):
        assert f': {name}' in output
    assert 'not loaded, (3, 256) in the file, (5, 256) here: bbox_head.cls_branches.0.weight' in output
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    for name, value in model.state_dict().items():
        assert value.isfinite().all()
        assert torch.equal(value, weights[name]) == (value.shape == weights[name].shape) or value.shape == ()
    assert model.bbox_head.num_classes == 5 and len(model.dataset_meta['classes']) == 5


def test_classes_of_the_weights(small_config, checkpoint, tmp_path):
    path = tmp_path / 'coco.py'
    path.write_text(f"_base_ = '{small_config}'\nmodel = dict(bbox_head=dict(num_classes=80))\n")
    assert lite_detr_mmdet.get_model(path, pretrained=checkpoint, device='cpu').bbox_head.num_classes == 3
    untrained = lite_detr_mmdet.get_model(path, device='cpu')
    assert untrained.bbox_head.num_classes == 80 and untrained.dataset_meta['classes'][0] == 'person'


def test_address(small_config, checkpoint, server, cache):
    server.files['/checkpoint.pth'] = checkpoint.read_bytes()
    model = lite_detr_mmdet.get_model(small_config, pretrained=f'{server.url}/checkpoint.pth', device='cpu')
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    assert torch.equal(model.level_embed, weights['level_embed'])


def test_released_weights(small_config, checkpoint, server, cache, monkeypatch):
    server.files['/checkpoint.pth'] = checkpoint.read_bytes()
    model = ShippedModel('small', small_config, weights=f'{server.url}/checkpoint.pth')
    monkeypatch.setattr(names, 'shipped_models', lambda: {'small': model})
    for pretrained in (True, 'small'):
        made = lite_detr_mmdet.get_model('small', pretrained=pretrained, device='cpu')
        assert made.bbox_head.num_classes == 3
    detector = lite_detr_mmdet.Detector(weights='small', device='cpu')
    assert detector.model.dataset_meta['classes'] == ('disc', 'rectangle', 'triangle')
    monkeypatch.setattr(names, 'shipped_models', lambda: {'small': ShippedModel('small', small_config)})
    for pretrained in (True, 'small'):
        with pytest.raises(ValueError, match='small has no released weights: pretrained must be a file or a URL'):
            lite_detr_mmdet.get_model('small', pretrained=pretrained)
    with pytest.raises(FileNotFoundError, match="a URL or the name of a model that has some, got 'smal'"):
        lite_detr_mmdet.get_model('small', pretrained='smal')


def test_bad_arguments(small_config, tmp_path):
    with pytest.raises(ValueError, match='num_classes must be at least 1, got 0'):
        lite_detr_mmdet.get_model(small_config, num_classes=0)
    with pytest.raises(
        ValueError, match='num_classes is for models with a bbox_head, Mask2Former needs a config for 3'
    ):
        lite_detr_mmdet.get_model('lite-mask2former_h2l1-2p1x3_r50', num_classes=3)
    with pytest.raises(FileNotFoundError, match='weights must be a file that exists'):
        lite_detr_mmdet.get_model(small_config, pretrained='none.pth')
    with pytest.raises(ValueError, match='no weight fits the model: the file has head'):
        models.load_fitting_weights(torch.nn.Linear(1, 1), {'head': torch.zeros(1)})


def test_class_branch_of_another_shape_says_nothing_of_classes():
    cfg = Config(dict(model=dict(type='LiteDINO', bbox_head=dict(num_classes=80))))
    for shape, expected in (((), 80), ((3,), 80), ((3, 4, 5), 80), ((3, 4), 3)):
        models.set_num_classes(cfg, None, {models.CLASS_BRANCH: torch.zeros(shape)})
        assert cfg.model.bbox_head.num_classes == expected


def test_report_names_everything():
    model = torch.nn.Linear(2, 3)
    report = models.load_fitting_weights(model, {'weight': torch.zeros(3, 2), 'other': torch.zeros(1)})
    assert str(report).splitlines() == [
        '1 weights loaded',
        'not loaded, not in the file: bias',
        'not used, not in the model: other',
    ]

"""The first training step of each family as installed: its backbone gets the weights that its config names."""

import hashlib
import io
import sys

import pytest
import torch
from mmdet.registry import MODELS

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.converters.backbone_keys import backbone_to_official
from lite_detr_mmdet.pretrained import names

CONFIGS = [
    'dino/dino-4scale_r50_8xb2-36e_coco.py',
    'h_detr/h-detr_r50_8xb2-12e_coco.py',
    'lite_ddq_detr/lite-ddq-detr_h3l1-2p1x3_r50_8xb2-12e_coco.py',
    'lite_deformable_detr/lite-deformable-detr_h3l1-2p1x3_r50_16xb2-50e_coco.py',
    'lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py',
    'lite_dino/lite-dino-4scale_h3l1-2p1x3_swin-t_8xb2-36e_coco.py',
    'lite_grounding_dino/lite-grounding-dino_h3l1-2p1x3_r50_8xb2-12e_coco.py',
    'lite_h_detr/lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py',
    'lite_mask2former/lite-mask2former_h2l1-2p1x3_r50_8xb2-lsj-50e_coco.py',
]


def weights_of_publisher(backbone: torch.nn.Module) -> dict:
    """Random weights of a backbone under the names of torchvision, or of Swin's authors."""
    weights = {}
    for name, tensor in backbone.state_dict().items():
        tensor = torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        if type(backbone).__name__ == 'SwinTransformer':
            name, tensor = backbone_to_official(f'backbone.{name}', tensor, 'swin', 'dino')
            name = name.removeprefix('backbone.0.')
        weights[name] = tensor
    return dict(model=weights) if type(backbone).__name__ == 'SwinTransformer' else weights


@pytest.mark.parametrize('path', CONFIGS)
def test_first_step(path, tiny_config, batch, server, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)  # importing it fails
    cfg = tiny_config(path).model
    content = weights_of_publisher(MODELS.build(cfg.backbone))
    file = io.BytesIO()
    torch.save(content, file)
    url = f'/weights-{hashlib.sha256(file.getvalue()).hexdigest()[:8]}.pth'
    server.files[url] = file.getvalue()
    if cfg.backbone.type == 'SwinTransformer':
        cfg.backbone.init_cfg = dict(type='Pretrained', checkpoint=f'{server.url}{url}')
    else:
        monkeypatch.setattr(names, 'published_urls', lambda table: {'resnet50': f'{server.url}{url}'})
        cfg.backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet50')
    model = MODELS.build(cfg)
    model.init_weights()
    assert [path for path, _ in server.requests] == [url]
    if cfg.backbone.type == 'SwinTransformer':
        assert torch.equal(model.backbone.patch_embed.projection.weight, content['model']['patch_embed.proj.weight'])
    else:
        assert torch.equal(model.backbone.layer1[0].conv1.weight, content['layer1.0.conv1.weight'])
    with torch.no_grad():  # random norms of many layers make maps that are too large
        for parameter in model.backbone.parameters():
            parameter.mul_(0.1)
    model.train()
    loss, _ = model.parse_losses(model(**model.data_preprocessor(batch((2,)), training=True), mode='loss'))
    loss.backward()
    assert loss.isfinite()

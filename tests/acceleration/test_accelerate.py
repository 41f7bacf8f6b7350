"""accelerate: equal outputs for every host, what stays as it was, what is said."""

import copy
import pickle
from functools import partial

import pytest
import torch
from helpers import language_model  # noqa: F401  registers RandomLanguageModel
from mmdet.registry import MODELS
from mmengine.config import Config

import lite_detr_mmdet
from lite_detr_mmdet.acceleration import onednn, restore
from lite_detr_mmdet.acceleration.overlay import Overlay, ShapeCache
from lite_detr_mmdet.models.layers import restore_attention, swap_attention

HOSTS = (
    'lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py',
    'lite_dino/lite-dino-4scale_h3l1-2p1x3-seq_r50_8xb2-36e_coco.py',
    'lite_dino/lite-dino-4scale_h3l1-2p1x3-msda_r50_8xb2-36e_coco.py',
    'lite_dino/lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_8xb2-36e_coco.py',
    'dino/dino-4scale_swin-t_8xb2-36e_coco.py',
    'lite_deformable_detr/lite-deformable-detr_h3l1-2p1x3_r50_16xb2-50e_coco.py',
    'lite_h_detr/lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py',
    'lite_ddq_detr/lite-ddq-detr_h3l1-2p1x3_r50_8xb2-12e_coco.py',
    'lite_grounding_dino/lite-grounding-dino_h3l1-2p1x3_r50_8xb2-12e_coco.py',
    'lite_mask2former/lite-mask2former_h2l1-2p1x3_r50_8xb2-lsj-50e_coco.py',
)
LITE_DINO = HOSTS[0]
# Stock detectors of mmdet, and how many ordinary attentions they have with two layers.
STOCK = {
    'dino/dino-4scale_r50_8xb2-12e_coco.py': 4,
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': 4,
    'grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py': 4,
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': 2,
}

pytestmark = pytest.mark.skipif(onednn.why_not(torch.float32) is not None, reason='no oneDNN in this torch')


@pytest.fixture
def make_model(tiny_config):
    """Build a small detector with batch norms that do something."""

    def make(path: str) -> torch.nn.Module:
        cfg = tiny_config(path)
        model = MODELS.build(cfg.model)
        model.init_weights()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.1)
                torch.nn.init.normal_(module.running_mean, std=0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        return model.eval()

    return make


@pytest.fixture
def inputs(batch):
    """Images in memory, normalised: of one size, or padded to that of the largest."""

    def make(model, num_images: int = 1, size=(96, 128), padded: bool = False) -> dict:
        data = batch(num_boxes=(1,) * num_images, size=size)
        if not padded:
            data['inputs'] = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(num_images)]
            for sample in data['data_samples']:
                sample.set_metainfo(dict(img_shape=size, batch_input_shape=size))
        return model.data_preprocessor(data, False)

    return make


def outputs(model, data: dict) -> list:
    """Tensors of a forward pass whose order does not depend on rounding: the memory, then sorted scores."""
    memories = []
    handle = None
    if hasattr(model, 'encoder'):
        handle = model.encoder.register_forward_hook(lambda module, args, output: memories.append(output))
    with torch.inference_mode():
        results = model(**copy.deepcopy(data), mode='predict')
    if handle is not None:
        handle.remove()
    tensors = [item for memory in memories for item in (memory if isinstance(memory, tuple) else (memory,))]
    for result in results:
        instances = result.pred_instances
        tensors += [instances.scores.sort().values, instances.bboxes.sum(0) / 100]
    return tensors


def assert_equal(actual: list, expected: list, atol: float = 1e-4, rtol: float = 1e-4) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected):
        torch.testing.assert_close(one, other, atol=atol, rtol=rtol)


@pytest.mark.parametrize('path', HOSTS, ids=lambda path: path.partition('/')[2].partition('_r50')[0])
def test_every_host(make_model, inputs, path):
    model = make_model(path)
    data = [inputs(model), inputs(model, 2, padded=True)]
    expected = [outputs(model, item) for item in data]
    assert lite_detr_mmdet.accelerate(model, verbose=False) is model
    for item, tensors in zip(data, expected):
        assert_equal(outputs(model, item), tensors)
    assert model.acceleration_report.changed and not model.acceleration_report.skipped


@pytest.fixture(params=STOCK, ids=lambda path: path.partition('/')[0])
def stock(request):
    """A stock detector with a small backbone and without a language model, and how many attentions it has."""
    cfg = Config.fromstring(f"_base_ = 'mmdet::{request.param}'", '.py')
    cfg.model.backbone.update(depth=18, init_cfg=None)
    user = cfg.model.get('neck', cfg.model.get('panoptic_head'))
    user.in_channels = [channels // 4 for channels in user.in_channels]
    head = cfg.model.get('panoptic_head')
    (head or cfg.model).num_queries = 20
    for coder in (head.pixel_decoder.encoder,) if head else (cfg.model.encoder, cfg.model.decoder):
        coder.num_layers = 2
        coder.pop('num_cp', None)  # needs fairscale
    cfg.model.test_cfg.update({name: 10 for name in ('max_per_img', 'max_per_image') if name in cfg.model.test_cfg})
    if 'language_model' in cfg.model:
        cfg.model.language_model = dict(type='RandomLanguageModel')
    model = MODELS.build(cfg.model)
    model.init_weights()
    for name, parameter in model.named_parameters():  # they start at zero: attention would not depend on the query
        if name.endswith(('sampling_offsets.weight', 'attention_weights.weight')):
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval(), STOCK[request.param]


def test_stock_hosts(stock, inputs):
    model, num_attentions = stock
    data = inputs(model)
    expected = outputs(model, data)
    names, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    # Attention alone, then all that is accelerated.
    assert len(swap_attention(model)) == num_attentions
    assert_equal(outputs(model, data), expected, atol=1e-5, rtol=1e-5)
    assert list(model.state_dict()) == names
    restore_attention(model)
    assert_equal(outputs(lite_detr_mmdet.accelerate(model, verbose=False), data), expected)
    (count,) = [count for what, count in model.acceleration_report.changed.items() if 'this package' in what]
    assert count == num_attentions and list(model.state_dict()) == names
    assert [type(module) for module in restore(model).modules()] == classes
    lite_detr_mmdet.accelerate(model, attention=False, verbose=False)
    assert not any('deformable attention' in what for what in model.acceleration_report.changed)
    assert_equal(outputs(model, data), expected)


def test_shapes_may_change(make_model, inputs):
    model, reference = make_model(LITE_DINO), None
    reference = copy.deepcopy(model)
    lite_detr_mmdet.accelerate(model, verbose=False)
    for num_images, size in ((1, (96, 128)), (2, (64, 160)), (1, (33, 47)), (1, (96, 128)), (3, (96, 128))):
        data = inputs(model, num_images, size)
        assert_equal(outputs(model, data), outputs(reference, data))
    assert 0 < len(model.shape_cache) <= 3
    with torch.no_grad():  # not only under the mode of the first call
        model(**inputs(model), mode='predict')


def test_training_is_bitwise_as_before(make_model, batch):
    model = make_model(LITE_DINO)
    reference = copy.deepcopy(model)
    lite_detr_mmdet.accelerate(model, verbose=False)
    results = []
    for item in (model, reference):
        item.train()
        torch.manual_seed(0)
        losses = item(**item.data_preprocessor(batch(), True), mode='loss')
        loss, _ = item.parse_losses(losses)
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in item.parameters() if p.grad is not None)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_state_dict_classes_and_restore(make_model, inputs):
    model = make_model(LITE_DINO)
    names, classes = list(model.state_dict()), [type(module) for module in model.modules()]
    data = inputs(model)
    expected = outputs(model, data)
    lite_detr_mmdet.accelerate(model, verbose=False)
    outputs(model, data)
    first = dict(model.acceleration_report.changed)
    assert dict(lite_detr_mmdet.accelerate(model, verbose=False).acceleration_report.changed) == first
    assert list(model.state_dict()) == names
    assert all(isinstance(module, kind) for module, kind in zip(model.modules(), classes))
    restore(model)
    assert [type(module) for module in model.modules()] == classes
    assert not any(isinstance(module, Overlay) for module in model.modules())
    assert all(torch.equal(one, other) for one, other in zip(outputs(model, data), expected))


def test_weights_may_change(make_model, inputs):
    model, other = make_model(LITE_DINO), make_model(LITE_DINO)
    data = inputs(model)
    expected = outputs(other, data)
    outputs(lite_detr_mmdet.accelerate(model, verbose=False), data)
    model.load_state_dict(other.state_dict())
    assert_equal(outputs(model, data), expected)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_accelerated_too(make_model, inputs, duplicate):
    model = lite_detr_mmdet.accelerate(make_model(LITE_DINO), verbose=False)
    data = inputs(model)
    expected = outputs(model, data)
    twin = duplicate(model)
    assert sum(isinstance(module, Overlay) for module in twin.modules()) > 10
    assert_equal(outputs(twin, data), expected, atol=1e-6)


def test_gradients_flow_as_before(make_model, inputs):
    model = lite_detr_mmdet.accelerate(make_model(LITE_DINO), verbose=False)
    data = inputs(model)
    image = data['inputs'].requires_grad_()
    model.extract_feat(image)[0].sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_half_precision(make_model, inputs):
    model = make_model(LITE_DINO)
    data = inputs(model)
    memory = outputs(model, data)[0]
    lite_detr_mmdet.accelerate(model, 'bfloat16', verbose=False)
    if not onednn.has_bfloat16():
        assert 'bfloat16' in model.acceleration_report.skipped
        assert_equal(outputs(model, data)[:1], [memory])
        return
    error = (outputs(model, data)[0] - memory).norm() / memory.norm()
    assert 1e-4 < error < 3e-2


def test_without_onednn_nothing_changes(make_model, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    model = lite_detr_mmdet.accelerate(make_model(LITE_DINO), verbose=False)
    assert 'oneDNN' in model.acceleration_report.skipped['packed layers']
    assert not any(isinstance(module, Overlay) for module in model.modules())


def test_without_a_compiler_the_reason_is_given(make_model, inputs, monkeypatch):
    from torch._inductor import cpp_builder

    def fail() -> None:
        raise RuntimeError('no g++ here')

    monkeypatch.setattr(cpp_builder, 'get_cpp_compiler', fail)
    model = lite_detr_mmdet.accelerate(make_model(LITE_DINO), compile=True, verbose=False)
    assert 'no g++ here' in model.acceleration_report.skipped['torch.compile']
    outputs(model, inputs(model))


@pytest.mark.slow
def test_compiled(make_model, inputs):
    model = make_model(LITE_DINO)
    model.encoder.layers = model.encoder.layers[:1]  # compiling is slow
    model.encoder.num_layers = model.encoder.num_blocks = 1
    data = inputs(model)
    expected = outputs(model, data)
    lite_detr_mmdet.accelerate(model, compile=True, verbose=False)
    if model.acceleration_report.skipped:
        pytest.skip(str(model.acceleration_report))
    for part in ('backbone', 'neck', 'decoder'):
        getattr(model, part)._compiled_call_impl = None
    assert_equal(outputs(model, data), expected)


def test_report_and_errors(make_model):
    model = lite_detr_mmdet.accelerate(make_model(LITE_DINO), verbose=False)
    assert 'encoder layers in blocks that stay in the cache (6)' in str(model.acceleration_report)
    with pytest.raises(ValueError, match="dtype must be one of 'float32', 'bfloat16', got 'int8'"):
        lite_detr_mmdet.accelerate(model, 'int8')
    with pytest.raises(TypeError, match=r'model must be a torch.nn.Module .* got str'):
        lite_detr_mmdet.accelerate('model')


def test_shape_cache_is_bounded():
    cache = ShapeCache(max_bytes=100)
    for key in range(10):
        assert cache.get(key, partial(int, key), lambda value: 40) == key
    assert len(cache) == 2
    assert cache.get(9, lambda: pytest.fail('made again'), lambda value: 40) == 9

"""H-DETR: queries, decoder, losses and gradients against the formulas; what must hold for any detector."""

import copy

import pytest
import torch
from helpers import h_detr_reference as reference
from helpers.detectors import read_config, without_initial_values
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

import lite_detr_mmdet  # noqa: F401

CONFIG = 'h_detr/h-detr_r50_8xb2-36e_coco.py'
LITE_CONFIG = 'lite_h_detr/lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py'
DIM, NUM_LAYERS, NUM_CLASSES = 64, 6, 5
ATTENTION, FFN = dict(embed_dims=DIM), dict(embed_dims=DIM, feedforward_channels=48)
SMALL = dict(
    num_queries=12,
    num_queries_one2many=20,
    backbone=dict(depth=18, frozen_stages=-1),
    neck=dict(in_channels=[128, 256, 512], out_channels=DIM),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=ATTENTION, ffn_cfg=FFN)),
    decoder=dict(layer_cfg=dict(self_attn_cfg=ATTENTION, cross_attn_cfg=ATTENTION, ffn_cfg=FFN)),
    positional_encoding=dict(num_feats=DIM // 2),
    bbox_head=dict(num_classes=NUM_CLASSES, embed_dims=DIM),
)
BASELINE = dict(num_queries_one2many=0)
# What stands between the output of the encoder and the losses.
AFTER_ENCODER = ('decoder.', 'bbox_head.', 'memory_trans_', 'pos_trans_', 'query_embedding.')
# The host computes proposals in float32, and mmdet adds float32's epsilon to the normalisers of losses.
BOUND = dict(rtol=1e-5, atol=1e-6)


@pytest.fixture
def config(tiny_config):
    """Make the config of a small H-DETR; arguments are merged into it."""

    def make(**options):
        cfg = tiny_config(CONFIG)
        cfg.merge_from_dict(dict(model=SMALL))
        cfg.merge_from_dict(dict(model=options))
        return cfg.model

    return make


def build_random(cfg) -> torch.nn.Module:
    """A detector in float64 none of whose parameters is zero or the same for all queries and layers."""
    model = MODELS.build(cfg).double()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=1.0 if 'query_embedding' in name else parameter[0].numel() ** -0.5)
        else:
            parameter.data.normal_(mean=1.0 if 'norm' in name and 'weight' in name else 0.0, std=0.1)
    return model


def assert_close(actual: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(actual, expected, **BOUND, msg=lambda text: f'{name}: {text}')


class Encoded:
    """Random output of the encoder for two images, the second smaller than the first, and their ground truth."""

    def __init__(self, shapes, num_boxes):
        self.shapes = shapes
        masks = []
        for height, width in shapes:
            mask = torch.zeros(2, height, width, dtype=torch.bool)
            mask[1, -(-height * 3 // 4) :] = True
            mask[1, :, -(-width * 2 // 3) :] = True
            masks.append(mask)
        self.masks = masks
        self.mask = torch.cat([mask.flatten(1) for mask in masks], 1)
        self.memory = torch.randn(*self.mask.shape, DIM, dtype=torch.float64)
        self.samples, self.targets = [], []
        for (height, width), number in zip(((64, 80), (48, 54)), num_boxes):
            size = torch.tensor([width, height], dtype=torch.float64)
            center = torch.rand(number, 2, dtype=torch.float64) * 0.4 + 0.3
            boxes = torch.cat([center, torch.rand(number, 2, dtype=torch.float64) * 0.4 + 0.1], -1)
            labels = torch.randint(NUM_CLASSES, (number,))
            self.targets.append(dict(labels=labels, boxes=boxes, size=size))
            sample = DetDataSample(metainfo=dict(img_shape=(height, width), batch_input_shape=(64, 80)))
            sample.gt_instances = InstanceData(bboxes=reference.corners(boxes) * size.repeat(2), labels=labels)
            self.samples.append(sample)

    def run(self, model, memory):
        """Inputs of the head."""
        spatial_shapes = torch.tensor(self.shapes)
        areas = spatial_shapes.prod(1)
        decoder_inputs, head_inputs = model.pre_decoder(memory, self.mask, spatial_shapes)
        decoder_outputs = model.forward_decoder(
            memory_mask=self.mask,
            spatial_shapes=spatial_shapes,
            level_start_index=areas.cumsum(0) - areas,
            valid_ratios=torch.stack([model.get_valid_ratio(mask) for mask in self.masks], 1),
            **decoder_inputs,
        )
        return {**head_inputs, **decoder_outputs}

    def decode(self, weights, memory, *num_queries):
        return reference.decode(weights, memory, self.mask, self.shapes, NUM_LAYERS, *num_queries)


LARGE = [(8, 10), (4, 5), (2, 3), (1, 2)]  # 108 tokens for 32 queries
MEDIUM = [(4, 4), (2, 3), (1, 2), (1, 1)]  # 25 tokens: 12 one-to-one and 13 one-to-many queries
TINY = [(2, 2), (1, 1), (1, 1), (1, 1)]  # 7 tokens: one-to-one queries only


@pytest.mark.parametrize(
    'shapes, num_boxes, options, num_losses',
    [
        (LARGE, (3, 2), {}, 39),
        (LARGE, (2, 0), dict(bbox_head=dict(k_one2many=3, lambda_one2many=0.5)), 39),
        (LARGE, (0, 0), {}, 39),
        (LARGE, (3, 2), BASELINE, 21),
        (MEDIUM, (2, 1), {}, 39),
        (TINY, (2, 1), {}, 39),
        (TINY, (2, 1), BASELINE, 21),
    ],
    ids=['hybrid', 'other K and lambda', 'no objects', 'baseline', 'few tokens', 'very few', 'very few, baseline'],
)
def test_losses_and_gradients(config, shapes, num_boxes, options, num_losses):
    cfg = config(**options)
    model = build_random(cfg)
    encoded = Encoded(shapes, num_boxes)

    memory = encoded.memory.clone().requires_grad_()
    losses = model.bbox_head.loss(**encoded.run(model, memory), batch_data_samples=encoded.samples)
    losses = {name: loss.sum() for name, loss in losses.items()}  # some have a dimension of one
    assert len(losses) == num_losses and all('loss' in name for name in losses)
    sum(losses.values()).backward()

    weights = {name: weight.detach().clone().requires_grad_() for name, weight in model.named_parameters()}
    expected_memory = encoded.memory.clone().requires_grad_()
    num_queries = cfg.num_queries, cfg.num_queries_one2many
    outputs = encoded.decode(weights, expected_memory, *num_queries)
    k, weight = cfg.bbox_head.k_one2many, cfg.bbox_head.lambda_one2many
    expected = reference.losses(outputs, encoded.targets, *num_queries, k, weight)
    sum(expected.values()).backward()

    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert_close(loss, torch.as_tensor(expected[name], dtype=loss.dtype), name)
    assert_close(memory.grad, expected_memory.grad, 'memory')
    names = [name for name in weights if name.startswith(AFTER_ENCODER)]
    assert 'query_embedding.weight' in names and 'decoder.layers.5.norms.2.bias' in names
    for name in names:
        assert_close(model.get_parameter(name).grad, weights[name].grad, name)


@pytest.mark.parametrize('shapes', [LARGE, TINY], ids=['many tokens', 'few tokens'])
def test_inference_decodes_one_to_one_queries_alone(config, shapes):
    model = build_random(config()).eval()
    encoded = Encoded(shapes, (0, 0))
    with torch.no_grad():
        classes, boxes = model.bbox_head(**encoded.run(model, encoded.memory))
        expected = encoded.decode(model.state_dict(), encoded.memory, 12, 0)
    assert_close(classes, expected['logits'], 'logits')
    assert_close(boxes, expected['boxes'], 'boxes')


def test_one_to_one_queries_do_not_depend_on_the_others(config):
    model = build_random(config())
    encoded = Encoded(LARGE, (0, 0))
    outputs = []
    for training in (True, False):
        inputs = encoded.run(model.train(training), encoded.memory)
        outputs.append(model.bbox_head(inputs['hidden_states'], inputs['references']))
    for train, test in zip(*outputs):
        assert train.shape[2] == 32 and test.shape[2] == 12
        torch.testing.assert_close(train[:, :, :12], test, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('options', [{}, BASELINE], ids=['hybrid', 'baseline'])
@pytest.mark.parametrize('num_boxes', [(3, 1), (2, 0), (0, 0), (4,), (0,)], ids=str)
def test_every_parameter_gets_a_gradient(config, batch, num_boxes, options):
    model = MODELS.build(config(**options))
    model.init_weights()
    for size in ((128, 160), (32, 40)):  # the second has 29 tokens for 32 queries
        model.zero_grad()
        loss, log = model.parse_losses(model(**model.data_preprocessor(batch(num_boxes, size), True), mode='loss'))
        assert all(torch.isfinite(value).all() for value in log.values())
        loss.backward()
        parameters = {name: param for name, param in model.named_parameters() if param.requires_grad}
        assert [name for name, param in parameters.items() if param.grad is None] == []
        assert [name for name, param in parameters.items() if not param.grad.isfinite().all()] == []


@pytest.mark.parametrize('options', [{}, BASELINE], ids=['hybrid', 'baseline'])
@pytest.mark.parametrize('num_boxes', [(2, 2), (1,)], ids=str)
def test_prediction(config, batch, num_boxes, options):
    model = MODELS.build(config(**options))
    model.init_weights()
    data = batch(num_boxes)
    with torch.no_grad():
        results = model.eval().test_step(data)
    for result, sample in zip(results, data['data_samples']):
        predictions = result.pred_instances
        assert len(predictions) == 10 and predictions.labels.max() < NUM_CLASSES
        height, width = sample.ori_shape
        assert (predictions.bboxes >= 0).all()
        assert (predictions.bboxes <= predictions.bboxes.new_tensor([width, height, width, height])).all()


def test_fewer_scores_than_predictions(config, batch):
    model = MODELS.build(config(bbox_head=dict(num_classes=1), test_cfg=dict(max_per_img=100)))
    model.init_weights()
    with torch.no_grad():
        for result in model.eval().test_step(batch((1, 1))):
            assert len(result.pred_instances) == 12 and (result.pred_instances.scores > 0).all()


def test_autocast(config, batch):
    model = MODELS.build(config())
    model.init_weights()
    with torch.autocast('cpu', torch.float16):
        loss, log = model.parse_losses(model(**model.data_preprocessor(batch(), True), mode='loss'))
    assert all(torch.isfinite(value).all() for value in log.values())
    loss.backward()
    assert all(param.grad.isfinite().all() for param in model.parameters() if param.grad is not None)


@pytest.mark.parametrize('path', [CONFIG, LITE_CONFIG])
def test_every_token_of_a_small_image_becomes_a_query(tiny_config, batch, path):
    cfg = tiny_config(path, num_queries=100)
    cfg.merge_from_dict(dict(model=dict(backbone=SMALL['backbone'], neck=dict(in_channels=[128, 256, 512]))))
    model = MODELS.build(cfg.model)
    model.init_weights()
    numbers = []
    model.decoder.register_forward_pre_hook(
        lambda _, args, kwargs: numbers.append(kwargs['query'].shape[1]), with_kwargs=True
    )
    data = model.data_preprocessor(batch((1, 1), (64, 64)), True)
    model.train()(**data, mode='loss')
    with torch.no_grad():
        model.eval()(**data, mode='predict')
    assert numbers == [64 + 16 + 4 + 1] * 2


def test_initialisation(config):
    model = MODELS.build(config(num_queries_one2many=1500))
    model.init_weights()
    table = model.query_embedding.weight
    assert table.shape == (1512, DIM) and abs(table.mean()) < 0.02 and abs(table.std() - 1) < 0.02
    assert model.bbox_head.cls_branches[0].bias[0].sigmoid().item() == pytest.approx(0.01)


@pytest.mark.parametrize('path', [CONFIG, LITE_CONFIG])
def test_recipe_of_the_authors(path):
    cfg = read_config(path)
    with without_initial_values():
        model = MODELS.build(cfg.model)
    parts = [*model.encoder.modules(), *model.decoder.modules()]
    assert {part.p for part in parts if isinstance(part, torch.nn.Dropout)} == {0.0}
    assert {part.dropout for part in parts if isinstance(part, torch.nn.MultiheadAttention)} == {0.0}
    assert model.encoder.layers[0].ffn.feedforward_channels == model.decoder.layers[0].ffn.feedforward_channels == 2048
    assert (model.positional_encoding.temperature, model.positional_encoding.offset) == (10000, -0.5)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 2e-4, 1e-4)
    factors = {name: keys.lr_mult for name, keys in cfg.optim_wrapper.paramwise_cfg.custom_keys.items()}
    assert factors['backbone'] == factors['sampling_offsets'] == 0.1
    assert cfg.optim_wrapper.clip_grad.max_norm == 0.1


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(as_two_stage=False), 'as_two_stage=False and with_box_refine=True'),
        (dict(with_box_refine=False), 'as_two_stage=True and with_box_refine=False'),
        (dict(num_queries=0), 'num_queries must be at least 1, got 0'),
        (dict(num_queries_one2many=-1), 'num_queries_one2many must not be negative, got -1'),
        (dict(bbox_head=dict(type='DeformableDETRHead')), "must be 'HDETRHead' or a subclass of it, got 'Deformable"),
        (dict(bbox_head=dict(num_queries_one2many=9)), 'must not set num_queries_one2many, the detector does; got 9'),
        (dict(bbox_head=dict(k_one2many=0)), 'k_one2many must be at least 1, got 0'),
        (dict(bbox_head=dict(lambda_one2many=-1.0)), 'lambda_one2many must not be negative, got -1.0'),
    ],
)
def test_arguments_that_do_not_fit(config, options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(config(**options))


def test_building_leaves_the_config_alone(config):
    cfg = config()
    before = copy.deepcopy(cfg.bbox_head)
    MODELS.build(cfg)
    assert cfg.bbox_head == before

"""Lite-Grounding-DINO: different texts, phrases, and the real text encoder where transformers is installed."""

import pytest
import torch
from mmdet.registry import MODELS

import lite_detr_mmdet  # noqa: F401

CONFIG = 'lite_grounding_dino/lite-grounding-dino_h3l1-2p1x3_r50_8xb2-12e_coco.py'
SMALL = dict(
    encoder=dict(num_layers=2, num_blocks=1, num_cp=2),
    decoder=dict(num_layers=2),
)


@pytest.fixture
def model_cfg(tiny_config):
    cfg = tiny_config(CONFIG)
    cfg.merge_from_dict(dict(model=SMALL))
    return cfg.model


def train_and_predict(model_cfg, data):
    model = MODELS.build(model_cfg)
    model.init_weights()
    loss, log = model.parse_losses(model(**model.data_preprocessor(data, training=True), mode='loss'))
    assert all(torch.isfinite(value).all() for value in log.values())
    loss.backward()
    without = [name for name, param in model.named_parameters() if param.requires_grad and param.grad is None]
    with torch.no_grad():
        return model.eval().test_step(data), without


def test_texts_of_different_length(model_cfg, batch):
    data = batch((2, 1))
    data['data_samples'][1].set_metainfo(dict(text=('ant', 'very large brown bear', 'cat', 'dog')))
    results, without = train_and_predict(model_cfg, data)
    assert without == []
    for sample, names in zip(results, ({'ant', 'brown bear', 'cat'}, {'ant', 'very large brown bear', 'cat', 'dog'})):
        assert len(sample.pred_instances) == 10 and set(sample.pred_instances.label_names) <= names


def test_bert(model_cfg, batch, tmp_path):
    transformers = pytest.importorskip('transformers')
    if int(transformers.__version__.split('.')[0]) >= 5:
        pytest.skip('mmdet calls batch_encode_plus, which transformers 5 removed')
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?', 'ant', 'brown', 'bear', 'cat']
    (tmp_path / 'vocab.txt').write_text('\n'.join(words) + '\n')
    bert = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(bert, add_pooling_layer=False).save_pretrained(tmp_path)
    transformers.BertTokenizerFast(str(tmp_path / 'vocab.txt')).save_pretrained(tmp_path)
    model_cfg.language_model = dict(
        type='BertModel',
        name=str(tmp_path),
        pad_to_max=False,
        use_sub_sentence_represent=True,
        special_tokens_list=['[CLS]', '[SEP]', '.', '?'],
        add_pooling_layer=False,
    )
    results, without = train_and_predict(model_cfg, batch((2, 0)))
    assert without == []
    assert all(len(sample.pred_instances) == 10 for sample in results)

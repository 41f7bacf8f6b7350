"""Settings of the command line: misspelt ones, the folder of the data, the number of epochs."""

import pytest

from lite_detr_mmdet.utils.overrides import apply_overrides
from lite_detr_mmdet.zoo import get_config


@pytest.fixture
def cfg():
    return get_config('lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_bccd')


@pytest.mark.parametrize(
    'name, words',
    [
        ('modle.encoder.num_cp', "no setting 'modle.encoder.num_cp'; did you mean 'model'?"),
        ('model.encodr.num_cp', "model has no 'encodr'; did you mean 'encoder'?"),
        ('param_scheduler.7.end', "param_scheduler is a list of 2, got '7'"),
        ('colour', "no setting 'colour'"),
    ],
)
def test_misspelt_names_are_refused(cfg, name, words):
    before = cfg.to_dict()
    with pytest.raises(ValueError, match=words.replace('?', r'\?')):
        apply_overrides(cfg, {name: 1})
    assert cfg.to_dict() == before


def test_new_settings_of_known_parts_are_accepted(cfg):
    apply_overrides(cfg, {'model.encoder.num_cp': 2, 'load_from': 'a.pth', 'model_wrapper_cfg.type': 'X'})
    assert cfg.model.encoder.num_cp == 2 and cfg.load_from == 'a.pth' and cfg.model_wrapper_cfg.type == 'X'


def test_one_setting_moves_all_data(cfg):
    apply_overrides(cfg, dict(data_root='elsewhere/cells'))
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == 'elsewhere/cells/'
    assert cfg.val_evaluator.ann_file == 'elsewhere/cells/annotations/instances_val.json'
    assert cfg.test_evaluator.ann_file == 'elsewhere/cells/annotations/instances_test.json'


def test_one_setting_changes_the_number_of_epochs(cfg):
    apply_overrides(cfg, dict(max_epochs=6))
    warm_up, cosine = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == 6 and (cosine.end, cosine.T_max) == (6, 6)
    assert warm_up.end == 50  # iterations


def test_steps_of_the_learning_rate_move_in_proportion():
    cfg = get_config('lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco')
    apply_overrides(cfg, dict(max_epochs=12))
    assert cfg.train_cfg.max_epochs == 12 and cfg.param_scheduler[0].milestones == [10]


@pytest.mark.parametrize('value', [0, -3, 2.5, 'ten'])
def test_number_of_epochs_that_is_none(cfg, value):
    with pytest.raises(ValueError, match='max_epochs must be a whole number above 0'):
        apply_overrides(cfg, dict(max_epochs=value))

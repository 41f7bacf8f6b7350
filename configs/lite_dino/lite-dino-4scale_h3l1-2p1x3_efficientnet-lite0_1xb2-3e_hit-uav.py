"""Lite-DINO with a frozen EfficientNet-Lite0 on small objects, HIT-UAV at 320x256; for a CPU.

Where the data is expected stands in ``_base_/datasets/hit_uav.py``; docs/accuracy.md compares this model with DINO.
"""

_base_ = ['./lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_1xb2-8e_bccd.py', '../_base_/datasets/hit_uav.py']

train_dataloader = dict(dataset=dict(_delete_=True, type='CocoDataset', **_base_.hit_uav_train))
val_dataloader = dict(dataset=dict(_delete_=True, type='CocoDataset', test_mode=True, **_base_.hit_uav_val))
test_dataloader = dict(dataset=dict(_delete_=True, type='CocoDataset', test_mode=True, **_base_.hit_uav_test))
val_evaluator = dict(ann_file=_base_.hit_uav_root + _base_.hit_uav_val.ann_file)
test_evaluator = dict(ann_file=_base_.hit_uav_root + _base_.hit_uav_test.ann_file)

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    _base_.small_data_warmup,
    dict(end=max_epochs, T_max=max_epochs, **_base_.small_data_cosine),
]

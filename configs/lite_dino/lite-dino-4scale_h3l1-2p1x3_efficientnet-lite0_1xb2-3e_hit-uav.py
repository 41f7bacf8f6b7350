"""Lite-DINO with a pretrained EfficientNet-Lite0 on small objects, HIT-UAV at 320x256, for a CPU.

Where the data is expected stands in ``_base_/datasets/hit_uav.py``; docs/accuracy.md compares this model with DINO.
"""

_base_ = ['./lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_1xb4-12e_bccd.py', '../_base_/datasets/hit_uav.py']

train_dataloader = dict(dataset=dict(_delete_=True, type='CocoDataset', **_base_.hit_uav_train))
val_dataloader = dict(dataset=dict(_delete_=True, type='CocoDataset', test_mode=True, **_base_.hit_uav_val))
test_dataloader = dict(dataset=dict(_delete_=True, type='CocoDataset', test_mode=True, **_base_.hit_uav_test))
val_evaluator = dict(ann_file=_base_.hit_uav_root + _base_.hit_uav_val.ann_file)
test_evaluator = dict(ann_file=_base_.hit_uav_root + _base_.hit_uav_test.ann_file)

model = dict(
    backbone=dict(frozen_stages=6),  # all of it, which takes a third off a step
    dn_cfg=dict(group_cfg=dict(num_dn_queries=100)),
)
train_dataloader.update(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
max_epochs = 3
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min=1e-6,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=2)

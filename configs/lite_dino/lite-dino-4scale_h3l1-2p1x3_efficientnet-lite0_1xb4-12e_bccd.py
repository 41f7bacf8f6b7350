"""Lite-DINO with a pretrained EfficientNet-Lite0 on real images, BCCD blood cells at 320x240, for a CPU.

Where the data is expected stands in ``_base_/datasets/bccd.py``.
"""

_base_ = ['./lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_8xb2-36e_coco.py', '../_base_/datasets/bccd.py']

custom_hooks = [dict(type='EpochSeedHook')]  # a resumed run equals an uninterrupted one

model = dict(
    num_queries=100,
    backbone=dict(frozen_stages=2),  # stem and the two largest maps: a third of the backbone's time, nothing to learn
    encoder=dict(
        low_level_ffn_ratio=1,  # 256 channels, as many as in the paper: docs/accuracy.md
        layer_cfg=dict(ffn_cfg=dict(feedforward_channels=256)),
    ),
    decoder=dict(num_layers=2, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=256))),
    bbox_head=dict(num_classes=3),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=50)),
    test_cfg=dict(max_per_img=100),
)

train_dataloader = dict(batch_size=4, num_workers=1, persistent_workers=False, dataset=_base_.bccd_train)
val_dataloader = dict(batch_size=4, num_workers=1, dataset=_base_.bccd_val)
test_dataloader = dict(batch_size=4, num_workers=1, dataset=_base_.bccd_test)
val_evaluator = dict(ann_file=_base_.bccd_root + _base_.bccd_val.ann_file)
test_evaluator = dict(ann_file=_base_.bccd_root + _base_.bccd_test.ann_file)

optim_wrapper = dict(optimizer=dict(lr=3e-4, fused=True))
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
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
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(max_keep_ckpts=2), visualization=dict(draw=False))
randomness = dict(seed=0)
auto_scale_lr = dict(base_batch_size=4)

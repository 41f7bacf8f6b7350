"""Stock DINO, small enough for a CPU, on the generated shapes: what the quickstart's Lite-DINO is compared with."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)
custom_hooks = [
    dict(type='EpochSeedHook'),  # a resumed run equals an uninterrupted one
    dict(type='FusedAttentionHook'),  # mmdet's layers build mmcv's attention whatever the config says
]

model = dict(
    num_queries=60,
    backbone=dict(
        depth=18, frozen_stages=-1, norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False, init_cfg=None
    ),
    neck=dict(in_channels=[128, 256, 512], bias=True),
    encoder=dict(num_layers=2, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=512))),
    decoder=dict(num_layers=3, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=512))),
    bbox_head=dict(type='LiteDINOHead', num_classes=3),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=60)),
    test_cfg=dict(max_per_img=60),
)

data_root = 'data/shapes/'
metainfo = dict(classes=('disc', 'rectangle', 'triangle'), palette=[(220, 20, 60), (0, 140, 60), (30, 60, 220)])
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

# Trained from scratch: one learning rate for the whole network.
optim_wrapper = dict(optimizer=dict(lr=3e-4, fused=True), paramwise_cfg=dict(_delete_=True))
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=6)
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

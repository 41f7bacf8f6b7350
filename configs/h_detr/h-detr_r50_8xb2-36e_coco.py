"""H-DETR, the authors' recipe of 36 epochs. The canonical config of the family."""

_base_ = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)
custom_hooks = [dict(type='FusedAttentionHook')]  # mmdet's layers build mmcv's attention whatever the config says

model = dict(
    type='HDETR',
    num_queries=300,
    num_queries_one2many=1500,
    neck=dict(bias=True),  # as in the authors' models; mmdet's Deformable DETR has no bias before the norm
    encoder=dict(
        layer_cfg=dict(self_attn_cfg=dict(dropout=0.0), ffn_cfg=dict(feedforward_channels=2048, ffn_drop=0.0))
    ),
    decoder=dict(
        layer_cfg=dict(
            self_attn_cfg=dict(dropout=0.0),
            cross_attn_cfg=dict(dropout=0.0),
            ffn_cfg=dict(feedforward_channels=2048, ffn_drop=0.0),
        )
    ),
    bbox_head=dict(type='HDETRHead', k_one2many=6, lambda_one2many=1.0),
)

max_epochs = 36
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[30], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=16)

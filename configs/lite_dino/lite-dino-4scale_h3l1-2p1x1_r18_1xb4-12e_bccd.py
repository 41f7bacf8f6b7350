"""A small Lite-DINO on real images, BCCD blood cells at 320x240, for a CPU.

The data is expected in ``data/bccd``, or in the folder that the environment variable ``BCCD_ROOT`` names, as
``images/*.jpg`` and ``annotations/instances_{train,val,test}.json``.
"""

_base_ = './lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'

model = dict(num_queries=100, test_cfg=dict(max_per_img=100))

data_root = '{{$BCCD_ROOT:data/bccd}}/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'), palette=[(220, 20, 60), (0, 140, 60), (30, 60, 220)])
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
images = dict(data_root=data_root, metainfo=metainfo, data_prefix=dict(img='images/'))
train_dataloader = dict(dataset=dict(ann_file='annotations/instances_train.json', pipeline=train_pipeline, **images))
val_dataloader = dict(dataset=dict(ann_file='annotations/instances_val.json', pipeline=test_pipeline, **images))
test_dataloader = dict(dataset=dict(ann_file='annotations/instances_test.json', pipeline=test_pipeline, **images))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_test.json')

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

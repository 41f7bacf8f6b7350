"""A small Lite-DINO on real images, BCCD blood cells at 320x240, for a CPU.

The data is expected in ``data/bccd``, or in the folder that the environment variable ``BCCD_ROOT`` names, as
``images/*.jpg`` and ``annotations/instances_{train,val,test}.json``.
"""

_base_ = './lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'

model = dict(num_queries=100, test_cfg=dict(max_per_img=100))

data_root = '{{$BCCD_ROOT:data/bccd}}/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'), palette=[(220, 20, 60), (0, 140, 60), (30, 60, 220)])
resize = dict(type='Resize', scale=(320, 240), keep_ratio=True)
train_pipeline = [*_base_.train_pipeline[:2], resize, *_base_.train_pipeline[2:]]
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[2:]]
images = dict(data_root=data_root, metainfo=metainfo, data_prefix=dict(img='images/'))
train_dataloader = dict(dataset=dict(ann_file='annotations/instances_train.json', pipeline=train_pipeline, **images))
val_dataloader = dict(dataset=dict(ann_file='annotations/instances_val.json', pipeline=test_pipeline, **images))
test_dataloader = dict(dataset=dict(ann_file='annotations/instances_test.json', pipeline=test_pipeline, **images))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_test.json')
train_cfg = dict(val_interval=2)

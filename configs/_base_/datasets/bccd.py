"""BCCD, blood cells under the microscope (205 training images, 3 classes), at 320x240.

The data is expected in ``data/bccd``, or in the folder that the environment variable ``BCCD_ROOT`` names, as
``images/*.jpg`` and ``annotations/instances_{train,val,test}.json``. A config takes what it needs:
``train_dataloader = dict(dataset=_base_.bccd_train)``.
"""

bccd_root = '{{$BCCD_ROOT:data/bccd}}/'
bccd_scale = (320, 240)
bccd_images = dict(
    data_root=bccd_root,
    metainfo=dict(classes=('RBC', 'WBC', 'Platelets'), palette=[(220, 20, 60), (0, 140, 60), (30, 60, 220)]),
    data_prefix=dict(img='images/'),
)
bccd_train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=bccd_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
bccd_test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=bccd_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
bccd_train = dict(ann_file='annotations/instances_train.json', pipeline=bccd_train_pipeline, **bccd_images)
bccd_val = dict(ann_file='annotations/instances_val.json', pipeline=bccd_test_pipeline, **bccd_images)
bccd_test = dict(ann_file='annotations/instances_test.json', pipeline=bccd_test_pipeline, **bccd_images)

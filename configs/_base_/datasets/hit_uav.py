"""HIT-UAV, people and vehicles in infrared from a drone (900 training images, two thirds of the boxes small).

The data is expected in ``data/hit_uav``, or in the folder that the environment variable ``HIT_UAV_ROOT`` names, as
``images/*.jpg`` and ``{train,val,test}.json``. The fourth class of the set, OtherVehicle, has 35 training and 15 test
objects, too few for an average of APs to mean anything: it is left out.
"""

hit_uav_root = '{{$HIT_UAV_ROOT:data/hit_uav}}/'
hit_uav_scale = (320, 256)  # half the size of the images
hit_uav_images = dict(
    data_root=hit_uav_root,
    metainfo=dict(classes=('Person', 'Car', 'Bicycle'), palette=[(220, 20, 60), (30, 60, 220), (0, 140, 60)]),
    data_prefix=dict(img='images/'),
)
hit_uav_train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=hit_uav_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
hit_uav_test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=hit_uav_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
hit_uav_train = dict(ann_file='train.json', pipeline=hit_uav_train_pipeline, **hit_uav_images)
hit_uav_val = dict(ann_file='val.json', pipeline=hit_uav_test_pipeline, **hit_uav_images)
hit_uav_test = dict(ann_file='test.json', pipeline=hit_uav_test_pipeline, **hit_uav_images)

"""Test-time augmentation: an image and its mirror image, merged."""

import copy

from mmengine.config import Config, ConfigDict

META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')


def use_tta(cfg: Config) -> None:
    """Test with augmentation, as ``tta_model`` and ``tta_pipeline`` of the config say or else with mirror images.

    Detections of both are put together, and of those that overlap by more than 0.5 the best one is kept, as in mmdet.

    Raises:
        ValueError: If the last transform of the test pipeline is not PackDetInputs, and there is no tta_pipeline.
    """
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_pipeline' not in cfg:
        pipeline = copy.deepcopy(list(dataset.pipeline))
        if not pipeline or not str(pipeline[-1]['type']).endswith('PackDetInputs'):
            raise ValueError(
                '--tta needs a tta_pipeline in the config: its test pipeline does not end in PackDetInputs'
            )
        flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
        pack = dict(type='PackDetInputs', meta_keys=META_KEYS)
        cfg.tta_pipeline = [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [pack]])]
    if 'tta_model' not in cfg:
        most = cfg.model.get('test_cfg', {}).get('max_per_img', 100)
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=most))
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)

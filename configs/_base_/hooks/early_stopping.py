"""Stop when the AP has not grown by 0.1 points in five validations, and keep the best checkpoint.

Name it among the bases and add the hooks::

    _base_ = ['CONFIG.py', '../_base_/hooks/early_stopping.py']
    default_hooks = dict(early_stopping=_base_.early_stopping_hook, checkpoint=_base_.best_checkpoint)
"""

early_stopping_hook = dict(
    type='EarlyStoppingHook',
    monitor='coco/bbox_mAP',
    rule='greater',
    min_delta=0.001,
    patience=5,  # validations, which are train_cfg.val_interval epochs apart
)
best_checkpoint = dict(save_best='coco/bbox_mAP', rule='greater')

"""DINO with three levels in 12 epochs, Table 1."""

_base_ = './dino-3scale_r50_8xb2-36e_coco.py'

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[11], gamma=0.1)]

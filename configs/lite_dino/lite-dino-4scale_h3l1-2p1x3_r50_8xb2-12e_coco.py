"""Lite-DINO H3L1-(2+1)x3 in 12 epochs, with the schedule of mmdet's DINO."""

_base_ = './lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[11], gamma=0.1)]

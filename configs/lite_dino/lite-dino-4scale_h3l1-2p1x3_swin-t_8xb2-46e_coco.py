"""Lite-DINO H3L1-(2+1)x3 with Swin-T as the authors' released config trains it.

It differs from the paper's text, 36 epochs, in 46 epochs with the same drop after 30, less noise on the boxes of the
denoising queries, and activations of the backbone that are computed twice to save memory.
"""

_base_ = './lite-dino-4scale_h3l1-2p1x3_swin-t_8xb2-36e_coco.py'

model = dict(backbone=dict(with_cp=True), dn_cfg=dict(box_noise_scale=0.4))

max_epochs = 46
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[30], gamma=0.1)]

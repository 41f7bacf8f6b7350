"""Lite-DINO H3L1-(2+1)x3 whose decoder layers share a class branch and a box branch, as the authors' models do."""

_base_ = './lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'

model = dict(bbox_head=dict(tied_branches=True))
optim_wrapper = dict(paramwise_cfg=dict(bypass_duplicate=True))  # a shared weight goes into the optimizer once

"""How to train on a few hundred images without a GPU: frozen backbone, many small steps; docs/own_data.md says why.

A config takes what it needs: ``model = _base_.small_data_model``.
"""

small_data_model = dict(
    backbone=dict(frozen_stages=6),  # all of EfficientNet-Lite0: no backward pass there
    dn_cfg=dict(group_cfg=dict(num_dn_queries=100)),
)
small_data_batch_size = 2  # twice the updates of four for the same time
small_data_optim_wrapper = dict(optimizer=dict(lr=4e-4, fused=True))
small_data_warmup = dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50)
small_data_cosine = dict(
    type='CosineAnnealingLR', begin=0, eta_min=1e-6, by_epoch=True, convert_to_iter_based=True
)  # with end and T_max, the number of epochs

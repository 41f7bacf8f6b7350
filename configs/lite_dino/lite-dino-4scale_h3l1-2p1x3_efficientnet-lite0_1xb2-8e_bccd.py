"""Lite-DINO with a frozen EfficientNet-Lite0 on BCCD, the recipe for small data; for a CPU.

docs/accuracy.md compares this model with DINO.
"""

_base_ = ['./lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_1xb4-12e_bccd.py', '../_base_/schedules/small_data.py']

model = _base_.small_data_model
train_dataloader = dict(batch_size=_base_.small_data_batch_size)
optim_wrapper = _base_.small_data_optim_wrapper
max_epochs = 8
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    _base_.small_data_warmup,
    dict(end=max_epochs, T_max=max_epochs, **_base_.small_data_cosine),
]
auto_scale_lr = dict(base_batch_size=_base_.small_data_batch_size)

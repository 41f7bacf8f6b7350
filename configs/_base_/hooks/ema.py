"""Exponential moving average of the weights: validated, saved and published in place of the last ones.

Name it among the bases and add the hook::

    _base_ = ['CONFIG.py', '../_base_/hooks/ema.py']
    default_hooks = dict(ema=_base_.ema_hook)
"""

ema_hook = dict(
    type='EMAHook',
    ema_type='ExpMomentumEMA',  # follows the weights closely in the first few thousand iterations
    momentum=0.0002,
    update_buffers=True,
    priority=49,
)

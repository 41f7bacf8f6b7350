"""Parts of the training loop; importing this package registers them in mmdet."""

from .epoch_seed_hook import EpochSeedHook

__all__ = ['EpochSeedHook']

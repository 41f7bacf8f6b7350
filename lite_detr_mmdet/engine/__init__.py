"""Parts of the training loop; importing this package registers them in mmdet."""

from .class_names_hook import ClassNamesHook
from .data_summary_hook import DataSummaryHook
from .epoch_seed_hook import EpochSeedHook
from .fused_attention_hook import FusedAttentionHook

__all__ = ['ClassNamesHook', 'DataSummaryHook', 'EpochSeedHook', 'FusedAttentionHook']

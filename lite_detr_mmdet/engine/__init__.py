"""Parts of the training loop; importing this package registers them in mmdet."""

from .attention_statistics_hook import AttentionStatisticsHook, attention_statistics
from .class_names_hook import ClassNamesHook
from .console import ShortLogProcessor, ShortRunner, shorten_console, summarize_fit, without_prints
from .cpu_amp import CPUAmpOptimWrapper, cpu_has_bfloat16
from .data_summary_hook import DataSummaryHook
from .epoch_seed_hook import EpochSeedHook
from .fused_attention_hook import FusedAttentionHook
from .progress_bar_hook import ProgressBarHook

__all__ = [
    'AttentionStatisticsHook',
    'CPUAmpOptimWrapper',
    'ClassNamesHook',
    'DataSummaryHook',
    'EpochSeedHook',
    'FusedAttentionHook',
    'ProgressBarHook',
    'ShortLogProcessor',
    'ShortRunner',
    'attention_statistics',
    'cpu_has_bfloat16',
    'shorten_console',
    'summarize_fit',
    'without_prints',
]

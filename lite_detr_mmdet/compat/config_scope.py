"""Let configs name the ones shipped here: ``_base_ = 'lite_detr_mmdet::lite_dino/...'``."""

from mmengine.config.utils import MODULE2PACKAGE


def register_config_scope() -> None:
    """Add this package to the table of packages that mmengine looks for configs in.

    The table is the only place that mmengine asks. The package must be imported before the config is read: the tools
    of this package do so; elsewhere write ``import lite_detr_mmdet`` first.
    """
    MODULE2PACKAGE.setdefault('lite_detr_mmdet', 'lite_detr_mmdet')

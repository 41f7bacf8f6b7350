"""Let configs name the ones shipped here, ``_base_ = 'lite_detr_mmdet::lite_dino/...'``, and find mmdet's fast."""

from typing import Optional, Tuple

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from ..zoo import ConfigNotFoundError, find_package_config

PREFIX = 'lite_detr_mmdet::'


def register_config_scope() -> None:
    """Teach mmengine's ``Config`` where the configs of this package are.

    mmengine's own table is not enough: it finds nothing in an editable install, and it marks inherited models with the
    scope ``lite_detr_mmdet``, for which there is no registry, since everything here is registered in mmdet's.

    Configs of other packages are taken from where they lie. mmengine reads all metafiles of the package first, a
    hundred in mmdet, and imports pkg_resources anew for each config.

    The package must be imported before such a config is read: its own tools do so, elsewhere write
    ``import lite_detr_mmdet`` first.
    """
    MODULE2PACKAGE.setdefault('lite_detr_mmdet', 'lite_detr_mmdet')  # for mmengine.hub
    original = Config._get_cfg_path
    if getattr(original, 'knows_lite_detr_mmdet', False):
        return

    def get_cfg_path(cfg_path: str, filename: str) -> Tuple[str, Optional[str]]:
        if cfg_path.startswith(PREFIX):
            return str(find_package_config(cfg_path)), 'mmdet'
        if '::' in cfg_path:
            try:
                return str(find_package_config(cfg_path)), cfg_path.partition('::')[0]
            except ConfigNotFoundError:
                pass  # mmengine knows other places, and what to say
        return original(cfg_path, filename)

    get_cfg_path.knows_lite_detr_mmdet = True
    Config._get_cfg_path = staticmethod(get_cfg_path)

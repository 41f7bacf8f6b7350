"""Let configs name the ones shipped here: ``_base_ = 'lite_detr_mmdet::lite_dino/...'``."""

import importlib.util
from pathlib import Path
from typing import Optional, Tuple

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

PREFIX = 'lite_detr_mmdet::'
PACKAGE = Path(__file__).resolve().parent.parent


def config_folder(package: str = PACKAGE.name) -> Path:
    """Folder of the configs that a package ships.

    Args:
        package (str): An installed package. Defaults to this one.

    Raises:
        FileNotFoundError: If the package is not installed.
    """
    if package != PACKAGE.name:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None:
            raise FileNotFoundError(f'the package {package!r} is not installed')
        return Path(spec.origin).parent / '.mim' / 'configs'
    # Installation fills .mim, by copies or by links; a source tree that was never installed has configs beside it.
    folders = [PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs']
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def config_path(name: str) -> str:
    """Path of a config that a package ships.

    Args:
        name (str): Name of the package, '::' and the path of the config below its ``configs``, as in
            'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'.

    Raises:
        FileNotFoundError: If there is no such package or config.
    """
    package, _, config = name.rpartition('::')
    folder = config_folder(package)
    if not (folder / config).is_file():
        raise FileNotFoundError(f'{name} is not a config of {package}: looked in {folder}')
    return str(folder / config)


def register_config_scope() -> None:
    """Teach mmengine's ``Config`` where the configs of this package are.

    mmengine's own table is not enough: it finds nothing in an editable install, and it marks inherited models with the
    scope ``lite_detr_mmdet``, for which there is no registry, since everything here is registered in mmdet's.

    The package must be imported before such a config is read: its own tools do so, elsewhere write
    ``import lite_detr_mmdet`` first.
    """
    MODULE2PACKAGE.setdefault('lite_detr_mmdet', 'lite_detr_mmdet')  # for mmengine.hub
    original = Config._get_cfg_path
    if getattr(original, 'knows_lite_detr_mmdet', False):
        return

    def get_cfg_path(cfg_path: str, filename: str) -> Tuple[str, Optional[str]]:
        if cfg_path.startswith(PREFIX):
            return config_path(cfg_path), 'mmdet'
        return original(cfg_path, filename)

    get_cfg_path.knows_lite_detr_mmdet = True
    Config._get_cfg_path = staticmethod(get_cfg_path)

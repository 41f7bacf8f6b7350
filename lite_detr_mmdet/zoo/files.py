"""Find the files that packages ship with their code: configs, metafiles, tools."""

import importlib.util
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def shipped_folder() -> Path:
    """Folder that holds ``model-index.yml`` and the ``configs`` that it lists.

    The source tree comes first, wherever there is one; a wheel has copies in ``.mim``.

    Raises:
        FileNotFoundError: If the package was installed without them.
    """
    folders = [PACKAGE.parent, PACKAGE / '.mim']
    for folder in folders:
        if (folder / 'model-index.yml').is_file() and (folder / 'configs').is_dir():
            return folder
    raise FileNotFoundError(
        f'lite_detr_mmdet was installed without its configs: no model-index.yml in {" or ".join(map(str, folders))}'
    )


def config_folder(package: str = PACKAGE.name) -> Path:
    """Folder of the configs that an installed package ships.

    Args:
        package (str): Name of the package. Defaults to this one.

    Raises:
        FileNotFoundError: If the package is not installed, or ships no configs.
    """
    if package == PACKAGE.name:
        return shipped_folder() / 'configs'
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f'the package {package!r} is not installed')
    folder = Path(spec.origin).parent / '.mim' / 'configs'
    if not folder.is_dir():
        raise FileNotFoundError(f'the package {package!r} ships no configs: there is no {folder}')
    return folder

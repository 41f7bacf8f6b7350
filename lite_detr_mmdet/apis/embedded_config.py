"""The config embedded in a checkpoint: read as data, reduced to what inference needs, built from known parts.

A config decides which classes are built with which arguments. In a stranger's config, a class may be anything that
Python can import, and arguments may name files and URLs. From such a config, only models and image transforms of this
package and of the OpenMMLab packages below it are built, without the arguments that make them read anything.
"""

import copy
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Callable, Dict, Iterator, Union

from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config, ConfigDict

from ..checkpoint import CheckpointError, ConfigTextError, config_from_json, parse_config_text

TRUSTED_PACKAGES = ('lite_detr_mmdet', 'mmdet', 'mmcv', 'mmengine', 'torch')
SCOPES = ('mmdet', 'mmcv', 'mmengine')
# Detectors that read a second config or checkpoint when they are built.
REFUSED_TYPES = ('KnowledgeDistillationSingleStageDetector', 'LAD')
REFUSED_KEYS = ('teacher_config', 'teacher_ckpt', 'custom_imports')
DROPPED_KEYS = ('init_cfg', 'pretrained', 'backend_args', 'file_client_args')  # weights come from the checkpoint
LANGUAGE_MODELS = ('bert-base-uncased',)
TRANSFORMS = (
    'LoadImageFromFile',
    'DETRResize',
    'Resize',
    'FixScaleResize',
    'RandomFlip',
    'Normalize',
    'Pad',
    'LoadAnnotations',
    'LoadPanopticAnnotations',
    'PackDetInputs',
)


def read_embedded_config(path: Union[str, Path], meta: dict) -> Dict[str, Any]:
    """The config of a checkpoint as plain values, without executing anything in it.

    Args:
        path (str | Path): The file.
        meta (dict): Its ``meta``, with the config as JSON (``cfg_json``) or as text (``cfg``).

    Raises:
        CheckpointError: If there is none, or it contains anything but literals.
    """
    try:
        if isinstance(meta.get('cfg_json'), str):
            values = config_from_json(meta['cfg_json'])
        elif isinstance(meta.get('cfg'), str):
            values = parse_config_text(meta['cfg'])
        else:
            raise CheckpointError(path, 'holds no config')
    except ConfigTextError as error:
        raise CheckpointError(path, f'is refused: the config that it holds is not data: {error}') from error
    if not isinstance(values.get('model'), dict) or not isinstance(values['model'].get('backbone', {}), dict):
        raise CheckpointError(path, 'holds a config without a model')
    return values


def inference_config(path: Union[str, Path], meta: dict) -> Config:
    """Config that builds the model and the test pipeline of a checkpoint.

    Args:
        path (str | Path): The file.
        meta (dict): Its ``meta``.

    Raises:
        CheckpointError: If there is no config, or it asks for anything but models and transforms of known packages.
    """
    values = read_embedded_config(path, meta)
    dataset = _table(_table(values.get('test_dataloader')).get('dataset'))
    while 'dataset' in dataset:
        dataset = _table(dataset['dataset'])
    pipeline = dataset.get('pipeline')
    if not isinstance(pipeline, (list, tuple)):
        raise CheckpointError(path, 'holds a config without a test pipeline')
    # As text, either would be taken for the name of a file or a URL, and read.
    metainfo = {
        key: value
        for key, value in _table(dataset.get('metainfo')).items()
        if key in ('classes', 'palette') and isinstance(value, (list, tuple))
    }
    model, transforms = _known(values['model'], path), [_known_transform(item, path) for item in pipeline]
    return Config(
        dict(
            default_scope='mmdet',
            model=model,
            test_dataloader=dict(dataset=dict(type='CocoDataset', metainfo=metainfo, pipeline=transforms)),
            visualizer=dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'),
        )
    )


def _table(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _known(value: Any, path: Union[str, Path]) -> Any:
    """A part of a model's config after its types were checked, without the keys that read files."""
    if isinstance(value, (list, tuple)):
        return type(value)(_known(item, path) for item in value)
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    refused = [key for key in REFUSED_KEYS if key in value]
    if refused:
        raise CheckpointError(path, f'is refused: its config sets {refused[0]}')
    if 'type' in value:
        _check_type(value['type'], path)
    if value.get('_scope_', 'mmdet') not in SCOPES:
        raise CheckpointError(path, f'is refused: its config has the scope {value["_scope_"]!r}')
    if value.get('type') == 'BertModel' and value.get('name') not in LANGUAGE_MODELS:
        raise CheckpointError(path, f'is refused: its config loads the language model {value.get("name")!r}')
    return {key: _known(item, path) for key, item in value.items() if key not in DROPPED_KEYS}


def _check_type(name: Any, path: Union[str, Path]) -> None:
    plain = name.rpartition('.')[2] if isinstance(name, str) else ''
    scope = name.rpartition('.')[0] if isinstance(name, str) else ''
    if plain and scope in ('', *SCOPES) and plain not in REFUSED_TYPES:
        for registry in (MODELS, TASK_UTILS):
            while registry is not None:  # mmdet's, then mmengine's
                found = registry.module_dict.get(plain)
                if found is not None and found.__module__.partition('.')[0] in TRUSTED_PACKAGES:
                    return
                registry = registry.parent
    raise CheckpointError(path, f'is refused: its config asks for {name!r}, which is not a part of a known detector')


def _known_transform(value: Any, path: Union[str, Path]) -> dict:
    name = value.get('type') if isinstance(value, dict) else None
    if not isinstance(name, str) or name.removeprefix('mmdet.') not in TRANSFORMS:
        raise CheckpointError(path, f'is refused: its config asks for the transform {name!r}, which is not known')
    return {key: copy.deepcopy(item) for key, item in value.items() if key not in (*DROPPED_KEYS, '_scope_')}


def without_folders(values: Dict[str, Any]) -> Config:
    """A config without the folders of its training run.

    Folders of data become ``data/NAME/``; of other absolute paths, wherever they stand, the last part is left.
    """
    cfg = Config(ConfigDict(values))
    cfg.work_dir = cfg.load_from = None
    cfg.resume = False
    plain = cfg.to_dict()
    roots = sorted(set(_data_roots(plain)), key=len, reverse=True)  # a folder may lie in another one

    def relative(text: str) -> str:
        for root in roots:
            text = text.replace(root, f'data/{_last_part(root)}/')
        return _last_part(text) if _is_absolute(text) else text

    return Config(_change_text(plain, relative))


def _data_roots(value: Any) -> Iterator[str]:
    """Absolute folders of data, ending in a slash."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and str(key).endswith('_root') and _is_absolute(item) and _last_part(item):
                yield item.rstrip('/') + '/'
            yield from _data_roots(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _data_roots(item)


def _is_absolute(text: str) -> bool:
    return '\n' not in text and (PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute())


def _last_part(path: str) -> str:
    return re.split(r'[/\\]', path.rstrip('/\\'))[-1]


def _change_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _change_text(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_change_text(item, change) for item in value)
    return change(value) if isinstance(value, str) else value

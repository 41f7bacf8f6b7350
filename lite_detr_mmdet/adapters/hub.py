"""Models as folders of safetensors and JSON, the form of the Hugging Face Hub.

A folder holds `model.safetensors`, `config.json` and `README.md`. From a stranger's folder, only the first two are
read, as data, and then treated as a stranger's checkpoint (docs/security.md).
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any, Optional, Union

from ..apis import Detector
from ..apis.model_card import make_model_card
from ..apis.publish import publish_model
from ..checkpoint import CheckpointError, file_sha256, load_checkpoint_file, save_checkpoint_file
from ..output_files import write_text
from ..version import __version__
from .optional import require

safetensors = require('safetensors.torch', 'safetensors')
WEIGHTS, CONFIG, CARD = 'model.safetensors', 'config.json', 'README.md'
FORMAT = 'lite_detr_mmdet'
LARGEST_CONFIG = 10_000_000  # bytes
USE = """## Use

```python
from lite_detr_mmdet.adapters import from_pretrained

result = from_pretrained('FOLDER_OR_NAME')('image.jpg')
```

"""


def save_pretrained(
    checkpoint: Union[str, Path],
    folder: Union[str, Path],
    name: Optional[str] = None,
    fp16: bool = False,
    license_name: str = 'Apache-2.0',
) -> Path:
    """Write a checkpoint as a folder of safetensors, JSON and a model card.

    Args:
        checkpoint (str | Path): Checkpoint that holds its config, as training and publishing write it.
        folder (str | Path): Folder to make; it must not exist yet or be empty.
        name (str, optional): Name of the model. Defaults to None: that of its config.
        fp16 (bool): Whether to keep weights in half precision. Defaults to False.
        license_name (str): License of the weights. Defaults to 'Apache-2.0'.

    Returns:
        Path: The folder.

    Raises:
        FileExistsError: If the folder holds something.
        CheckpointError, FileNotFoundError, ValueError: As :func:`lite_detr_mmdet.apis.publish.publish_model` does.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f'folder must not exist yet, or be empty, got {str(folder)!r}')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{folder.name}.', dir=folder.parent) as temporary:
        published = publish_model(checkpoint, Path(temporary) / 'published', name, None, fp16, license_name)
        content = load_checkpoint_file(published.path)
        made = Path(temporary) / 'folder'
        made.mkdir()
        # Tensors that share memory are written apart: the format knows no sharing.
        state_dict = {key: value.contiguous().clone() for key, value in content['state_dict'].items()}
        safetensors.save_file(state_dict, made / WEIGHTS, metadata={'format': 'pt'})
        meta = content['meta']
        kept = {key: meta[key] for key in ('name', 'dataset_meta', 'license', 'dtype', 'training', 'versions')}
        values = dict(format=FORMAT, version=__version__, **kept, config=json.loads(meta['cfg_json']))
        write_text(json.dumps(values, indent=1), made / CONFIG)
        size = (made / WEIGHTS).stat().st_size
        card = make_model_card(WEIGHTS, file_sha256(made / WEIGHTS), size, content)
        card = re.sub(r'## Use\n.*?(?=## Classes\n)', USE, card, flags=re.DOTALL)
        head = f'---\nlicense: {license_name.lower()}\npipeline_tag: object-detection\nlibrary_name: {FORMAT}\n---\n\n'
        write_text(head + card, made / CARD)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return folder


def from_pretrained(
    source: Union[str, Path],
    device: Optional[str] = None,
    revision: Optional[str] = None,
    **kwargs: Any,
) -> Detector:
    """Load a detector from a folder that :func:`save_pretrained` wrote, or from the Hub.

    Args:
        source (str | Path): A folder, or the name of a repository on the Hub, ``owner/name``.
        device (str, optional): Device. Defaults to None: a GPU if there is one.
        revision (str, optional): Branch, tag or commit on the Hub. Defaults to None: its main branch.
        kwargs: Further arguments of ``Detector``.

    Raises:
        FileNotFoundError: If there is no such folder, or a file is missing in it.
        CheckpointError: If a file is damaged, or its config asks for anything but a known detector.
        ImportError: If ``source`` is a repository and huggingface_hub is not installed.
    """
    folder = Path(source)
    if not folder.is_dir():
        if not re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', str(source)):
            raise FileNotFoundError(f'source must be a folder, or owner/name of a repository, got {str(source)!r}')
        hub = require('huggingface_hub')
        folder = Path(hub.snapshot_download(str(source), revision=revision, allow_patterns=[WEIGHTS, CONFIG]))
    for file in (WEIGHTS, CONFIG):
        if not (folder / file).is_file():
            raise FileNotFoundError(f'{folder} must hold {WEIGHTS} and {CONFIG}: {file} is missing')
    meta = _read_config(folder / CONFIG)
    try:
        state_dict = safetensors.load_file(folder / WEIGHTS)
    except Exception as error:  # whatever the library raises for damaged files
        raise CheckpointError(folder / WEIGHTS, f'is damaged: {error}') from error
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / 'checkpoint.pth'
        save_checkpoint_file(dict(meta=meta, state_dict=state_dict), path)
        try:
            return Detector(weights=path, device=device, **kwargs)
        except CheckpointError as error:
            raise CheckpointError(folder, error.fault) from error


def _read_config(path: Path) -> dict:
    """Metadata of a checkpoint from ``config.json``."""
    if path.stat().st_size > LARGEST_CONFIG:
        raise CheckpointError(path, f'is larger than {LARGEST_CONFIG} bytes')
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(path, f'is not JSON: {error}') from error
    if not isinstance(values, dict) or values.get('format') != FORMAT or not isinstance(values.get('config'), dict):
        raise CheckpointError(path, f'must be written by save_pretrained, with "format": "{FORMAT}" and a config')
    dataset_meta = values.get('dataset_meta')
    classes = dataset_meta.get('classes') if isinstance(dataset_meta, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(path, 'must name the classes, dataset_meta.classes, as a list of strings')
    return dict(cfg_json=json.dumps(values['config']), dataset_meta=dict(classes=tuple(classes)))


def push_to_hub(
    checkpoint: Union[str, Path], repo_id: str, private: bool = True, token: Optional[str] = None, **kwargs: Any
) -> str:
    """Upload a checkpoint to the Hub, as :func:`save_pretrained` writes it.

    Args:
        checkpoint (str | Path): Checkpoint that holds its config.
        repo_id (str): Repository, ``owner/name``; it is made if it does not exist.
        private (bool): Whether a new repository is private. Defaults to True.
        token (str, optional): Access token. Defaults to None: the one of ``hf auth login``.
        kwargs: Further arguments of :func:`save_pretrained`.

    Returns:
        str: URL of the repository.
    """
    api = require('huggingface_hub').HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(checkpoint, Path(temporary) / 'model', **kwargs)
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=str(folder))
    return str(url)

"""The model card of a published checkpoint, written from the contents of the file."""

import re
from typing import Any, List

from ..checkpoint import config_from_json

TEMPLATE = """# {name}

| | |
| --- | --- |
{rows}

## Use

```python
import lite_detr_mmdet

result = lite_detr_mmdet.Detector(weights='{file}')('image.jpg')
```

The file contains its config; `torch.load('{file}', weights_only=True)['meta']['cfg']` returns it as text.

## Classes

{classes}

## Training

{training}

## Limits

Detections are predictions with scores, not facts. The model knows only the classes above, was trained only on the
images of its training set, and has been evaluated only as stated above.
"""


def make_model_card(file: str, sha256: str, size: int, checkpoint: dict) -> str:
    """The model card as Markdown.

    Args:
        file (str): Name of the checkpoint.
        sha256 (str): Its SHA-256.
        size (int): Its size in bytes.
        checkpoint (dict): Its contents.
    """
    meta = checkpoint['meta']
    model = config_from_json(meta['cfg_json'])['model']
    parameters = sum(value.numel() for value in checkpoint['state_dict'].values() if value.is_floating_point())
    rows = {
        'File': f'`{file}`, {size / 1e6:.1f} MB',
        'SHA-256': f'`{sha256}`',
        'Detector': f'`{_text(model.get("type"))}`, backbone `{_text(model.get("backbone", {}).get("type"))}`',
        'Weights': f'{parameters / 1e6:.2f} million, {meta["dtype"]}',
        'License': meta['license'],
        'Published with': ', '.join(f'{name} {version}' for name, version in meta['versions'].items()),
    }
    if 'converted_from' in meta:
        source = meta['converted_from'] if isinstance(meta['converted_from'], dict) else {}
        rows['Converted from'] = f'`{_text(source.get("file"))}`, SHA-256 `{_text(source.get("sha256"))}`'
    return TEMPLATE.format(
        name=meta['name'],
        file=file,
        rows='\n'.join(f'| {key} | {value} |' for key, value in rows.items()),
        # As code: a name at the beginning of the line could otherwise be a heading, and one with a URL a link.
        classes=', '.join(f'`{_text(name)}`' for name in meta['dataset_meta'].get('classes') or ()) or 'not known',
        training='\n'.join(_training_lines(meta['training'])),
    )


def _text(value: Any) -> str:
    """Text from the checkpoint, stripped of what could become a link, a table or HTML on the page."""
    text = ''.join(letter if letter.isprintable() else ' ' for letter in str(value))
    return re.sub(r'[`|<>\[\]\\*]', '', text).replace('://', ': //').replace('www.', 'www .')[:200]


def _training_lines(training: dict) -> List[str]:
    if training is None:
        return ['The weights came without a training log.']
    metrics = training.get('metrics', {})
    lines = ['| | |', '| --- | --- |']
    lines += [
        f'| {_text(key).replace("_", " ")} | {_text(value)} |' for key, value in training.items() if key != 'metrics'
    ]
    if metrics:
        lines += ['', "Last evaluation of the run, on the config's validation set:", '', '| metric | value |']
        lines += ['| --- | --- |', *(f'| {_text(key)} | {_text(value)} |' for key, value in metrics.items())]
    return lines

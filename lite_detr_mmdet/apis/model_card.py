"""A page about a published model, written from what its file holds."""

from typing import List

from mmengine.config import Config

TEMPLATE = """# {name}

| | |
| --- | --- |
{rows}

## Use

```python
import lite_detr_mmdet

result = lite_detr_mmdet.Detector(weights='{file}')('image.jpg')
```

The file holds its config; `torch.load('{file}', weights_only=True)['meta']['cfg']` is the text of it.

## Classes

{classes}

## Training

{training}

## Limits

Detections are predictions with scores, not facts. The model knows the classes above only, has seen the images of its
training set only, and was evaluated on nothing but what stands above.
"""


def make_model_card(file: str, sha256: str, size: int, checkpoint: dict) -> str:
    """The page as Markdown.

    Args:
        file (str): Name of the checkpoint.
        sha256 (str): Its SHA-256.
        size (int): Its size in bytes.
        checkpoint (dict): Its content.
    """
    meta = checkpoint['meta']
    model = Config.fromstring(meta['cfg'], file_format='.py').model
    parameters = sum(value.numel() for value in checkpoint['state_dict'].values() if value.is_floating_point())
    rows = {
        'File': f'`{file}`, {size / 1e6:.1f} MB',
        'SHA-256': f'`{sha256}`',
        'Detector': f'`{model.type}`, backbone `{model.backbone.type}`',
        'Weights': f'{parameters / 1e6:.2f} million, {meta["dtype"]}',
        'License': meta['license'],
        'Published with': ', '.join(f'{name} {version}' for name, version in meta['versions'].items()),
    }
    if 'converted_from' in meta:
        source = meta['converted_from']
        rows['Converted from'] = f'`{source["file"]}`, SHA-256 `{source["sha256"]}`'
    return TEMPLATE.format(
        name=meta['name'],
        file=file,
        rows='\n'.join(f'| {key} | {value} |' for key, value in rows.items()),
        classes=', '.join(meta['dataset_meta'].get('classes', ())) or 'not known',
        training='\n'.join(_training_lines(meta['training'])),
    )


def _training_lines(training: dict) -> List[str]:
    if training is None:
        return ['No log of a training run came with the weights.']
    metrics = training.get('metrics', {})
    lines = ['| | |', '| --- | --- |']
    lines += [f'| {key.replace("_", " ")} | {value} |' for key, value in training.items() if key != 'metrics']
    if metrics:
        lines += ['', "Last evaluation of the run, on the config's validation set:", '', '| metric | value |']
        lines += ['| --- | --- |', *(f'| {key} | {value} |' for key, value in metrics.items())]
    return lines

"""What tests of downloads have in common: contents, and what is in the cache."""

import hashlib
import io
import json
from pathlib import Path

import torch

from lite_detr_mmdet.checkpoint.download import cache_path

CONTENT = bytes(range(256)) * 4096
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]
NAME = f'/model-{DIGITS}.pth'


def checkpoint_bytes(value: float = 1.0, size: int = 100_000) -> bytes:
    """A checkpoint, as a file's content."""
    file = io.BytesIO()
    torch.save(dict(state_dict=dict(w=torch.full((size,), value))), file)
    return file.getvalue()


def downloads(cache: Path) -> list:
    """What is in the cache beside locks and records."""
    return sorted(path.name for path in cache.iterdir() if path.suffix not in ('.lock', '.json'))


def put_partial(url: str, content: bytes, **record) -> None:
    path = cache_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f'{path.name}.partial').write_bytes(content)
    if record:
        path.with_name(f'{path.name}.partial.json').write_text(json.dumps(dict(url=url, **record)))


def ranges(server) -> list:
    return [headers.get('Range') for _, headers in server.requests]

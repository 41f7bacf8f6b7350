"""MMDetection's own tools on the configs of this package."""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, List

from ..zoo import ConfigNotFoundError, find_config


def mmdet_tools() -> Dict[str, Path]:
    """The scripts that mmdet installs, by their names without suffix."""
    spec = find_spec('mmdet')
    assert spec is not None and spec.origin is not None  # importing this package needs it
    folder = Path(spec.origin).parent / '.mim' / 'tools'
    return {path.stem: path for path in sorted(folder.rglob('*.py'), key=lambda path: -len(path.parts))}


def run_mmdet_tool(words: List[str]) -> None:
    """Run one of them after this package was imported, which teaches mmengine ``lite_detr_mmdet::`` configs.

    Args:
        words (list[str]): Name of the script and its arguments; names of shipped models become files.

    Raises:
        SystemExit: If there is no such script; else as the script does.
    """
    tools = mmdet_tools()
    name = words[0].removesuffix('.py') if words else ''
    if name not in tools:
        shown = ', '.join(sorted(tools)) or 'none: this mmdet was installed without them'
        print(f'usage: python -m lite_detr_mmdet mmdet TOOL [ARGUMENTS]\n\ntools: {shown}', file=sys.stderr)
        raise SystemExit(0 if words[:1] in (['-h'], ['--help']) else 2)
    sys.argv = [str(tools[name]), *map(_as_file, words[1:])]
    sys.path.insert(0, str(tools[name].parent))
    runpy.run_path(str(tools[name]), run_name='__main__')


def _as_file(word: str) -> str:
    if word.startswith('-') or '=' in word or Path(word).exists():
        return word
    try:
        return str(find_config(word))
    except (ConfigNotFoundError, OSError):
        return word

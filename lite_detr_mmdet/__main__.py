"""One door to the shipped tools: ``python -m lite_detr_mmdet COMMAND ...``; the tools have help of their own."""

import runpy
import sys
from typing import List, Optional

from .zoo import shipped_folder

COMMANDS = {
    'train': ('tools/train.py', 'train a detector'),
    'test': ('tools/test.py', 'evaluate a checkpoint'),
    'predict': ('demo/image_demo.py', 'detect in an image or a folder'),
    'export': ('tools/deployment/export_onnx.py', 'write a detector as ONNX and compare it with the model'),
    'attention': ('tools/analysis_tools/visualize_attention.py', 'draw what the attention looks at'),
    'benchmark': ('tools/analysis_tools/benchmark.py', 'time detectors and their parts, measure their memory'),
    'flops': ('tools/analysis_tools/get_flops.py', 'count multiply-adds and parameters'),
    'new-config': ('tools/misc/new_config.py', 'write a config for your own data'),
    'check': ('tools/misc/check_dataset.py', 'check the data of a config before training'),
    'voc-to-coco': ('tools/dataset_converters/voc_to_coco.py', 'convert a Pascal VOC folder'),
    'yolo-to-coco': ('tools/dataset_converters/yolo_to_coco.py', 'convert a YOLO folder'),
    'plot': ('tools/analysis_tools/plot_run.py', 'draw loss, AP and learning rate of training runs'),
    'convert': ('tools/model_converters/official_to_mmdet.py', "convert the authors' checkpoints"),
    'quickstart': ('tools/quickstart.py', 'train and test a small detector in minutes'),
    'publish': ('tools/model_converters/publish_model.py', 'publish a training checkpoint'),
}


def usage() -> str:
    """What can be called."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {text}' for name, (_, text) in COMMANDS.items()]
    lines.append(f'  {"mmdet":{width}}  run a tool of mmdet, e.g. browse_dataset or confusion_matrix')
    return '\n'.join(['usage: python -m lite_detr_mmdet COMMAND [ARGUMENTS]', '', *lines])


def main(argv: Optional[List[str]] = None) -> None:
    """Run a tool as if its file had been called.

    Args:
        argv (list[str], optional): Command and arguments. Defaults to None, those of the process.

    Raises:
        SystemExit: With status 2 if there is no such command; else as the tool does.
    """
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ('-h', '--help'):
        print(usage())
        return
    if words[0] == 'mmdet':
        from .utils.mmdet_tools import run_mmdet_tool

        run_mmdet_tool(words[1:])
        return
    if words[0] not in COMMANDS:
        print(f'{usage()}\n\nthere is no command {words[0]!r}', file=sys.stderr)
        raise SystemExit(2)
    path = shipped_folder() / COMMANDS[words[0]][0]
    sys.argv = [str(path), *words[1:]]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name='__main__')


if __name__ == '__main__':
    main()

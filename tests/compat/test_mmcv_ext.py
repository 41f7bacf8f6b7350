"""mmcv without compiled operators: the stand-in for ``mmcv._ext``."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lite_detr_mmdet.compat import find_loader

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> subprocess.CompletedProcess:
    """Run code in another interpreter where ``mmcv._ext`` is missing, whatever mmcv is installed."""
    code = "import sys\nsys.modules['mmcv._ext'] = None\n" + textwrap.dedent(code)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True)


def test_training_evaluation_and_detection_without_compiled_operators():
    result = python(
        """
        import importlib.util, pkgutil
        import torch
        import lite_detr_mmdet
        from lite_detr_mmdet.compat import has_stand_in
        assert has_stand_in() and importlib.util.find_spec('mmcv._ext') is sys.modules['mmcv._ext'].__spec__
        assert pkgutil.find_loader('mmcv._ext') is not None

        from mmdet.registry import MODELS
        from mmdet.testing import demo_mm_inputs
        from mmcv.utils import collect_env
        for name in (
            'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py',
            'lite_detr_mmdet::lite_ddq_detr/lite-ddq-detr_h3l1-2p1x3_r50_8xb2-12e_coco.py',
        ):
            cfg = lite_detr_mmdet.get_config(name).model
            cfg.num_queries = 20
            cfg.test_cfg.max_per_img = 10
            cfg.bbox_head.num_classes = 3
            cfg.backbone.update(depth=18, init_cfg=None)
            cfg.neck.in_channels = [128, 256, 512]
            model = MODELS.build(cfg)
            model.init_weights()
            data = demo_mm_inputs(1, image_shapes=[(3, 64, 96)], num_classes=3)
            batch = model.data_preprocessor(data, training=True)
            for sample in batch['data_samples']:
                sample.gt_instances.bboxes = getattr(sample.gt_instances.bboxes, 'tensor', sample.gt_instances.bboxes)
            loss, _ = model.parse_losses(model(**batch, mode='loss'))
            loss.backward()
            assert loss.isfinite()
            with torch.no_grad():
                detections = model.eval()(**batch, mode='predict')[0].pred_instances
            assert len(detections) <= 20 and detections.bboxes.isfinite().all()
        assert 'not compiled' in collect_env()['MMCV Compiler']
        print('works')
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == 'works'


def test_missing_function_names_itself_who_calls_it_and_the_remedy():
    result = python(
        """
        import torch
        import lite_detr_mmdet
        from mmcv.ops import deform_conv2d

        def apply(device='cpu'):
            offset = torch.randn(1, 18, 6, 6)
            deform_conv2d(torch.randn(1, 3, 8, 8), offset, torch.randn(4, 3, 3, 3))

        try:
            apply()
        except NotImplementedError as error:
            print(error)
        """
    )
    assert result.returncode == 0, result.stderr
    for part in ("'deform_conv_forward'", 'mmcv.ops.deform_conv', 'called by __main__ (line', 'MMCV_WITH_OPS=1'):
        assert part in result.stdout
    assert 'pip uninstall -y mmcv mmcv-lite' in result.stdout


def test_compiled_operators_are_left_alone():
    from lite_detr_mmdet.compat import has_stand_in, mmcv_ext

    before = sys.modules['mmcv._ext']
    assert mmcv_ext.stand_in_for_mmcv_ext() == has_stand_in()
    assert sys.modules['mmcv._ext'] is before


def test_stand_in_has_no_made_up_special_attributes():
    result = python(
        """
        import inspect
        import lite_detr_mmdet
        module = sys.modules['mmcv._ext']
        assert module.__spec__.name == module.__name__ == 'mmcv._ext' and not hasattr(module, '__path__')
        assert inspect.getmodule(module.nms).__name__ == 'lite_detr_mmdet.compat.mmcv_functions'
        """
    )
    assert result.returncode == 0, result.stderr


def test_find_loader_is_given_back_where_python_lacks_it(monkeypatch):
    import pkgutil

    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
    find_loader.restore_find_loader()
    assert pkgutil.find_loader('json') is sys.modules['json'].__spec__.loader
    assert pkgutil.find_loader('no_such_module_anywhere') is None
    with pytest.raises(ImportError):
        pkgutil.find_loader('.relative')

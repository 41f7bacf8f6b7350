"""tools/model_converters/publish_model.py with the checkpoint of a real training run."""

import pytest
import torch

import lite_detr_mmdet

pytestmark = pytest.mark.process

SCRIPT = 'tools/model_converters/publish_model.py'


def test_checkpoint_of_a_run(run_tool, trained, shapes, tmp_path):
    result = run_tool(SCRIPT, trained.checkpoint, tmp_path, '--fp16')
    (path,) = tmp_path.glob('*.pth')
    assert f'written: {path}' in result.output and f'model card: {path.with_suffix(".md")}' in result.output
    assert path.name.startswith('lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes-')
    meta = torch.load(path, weights_only=True)['meta']
    assert str(trained.work_dir) not in meta['cfg']
    assert meta['training']['epochs'] == 2 and 'coco/bbox_mAP' in meta['training']['metrics']
    assert tuple(meta['dataset_meta']['classes']) == ('disc', 'rectangle', 'triangle')
    detector = lite_detr_mmdet.Detector(weights=path, device='cpu', show_progress=False)
    result = detector(str(shapes / 'val' / '000000.png'), pred_score_thr=0)['predictions'][0]
    assert len(result['scores']) == 10 and set(result['labels']) <= {0, 1, 2}


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['none.pth'], "error: must be a checkpoint file that exists, got 'none.pth'"),
        (['CHECKPOINT', '--name', 'My model'], 'error: name must be lower-case letters'),
    ],
)
def test_bad_arguments(error_of_tool, trained, tmp_path, arguments, message):
    arguments = [trained.checkpoint if item == 'CHECKPOINT' else item for item in arguments]
    assert message in error_of_tool(SCRIPT, arguments[0], tmp_path, *arguments[1:])

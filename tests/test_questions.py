"""A newcomer's questions, and the file where the answer is: what moves takes its first guess along."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = 'lite_detr_mmdet/models/layers'
# Question -> the file that one guesses first, and words of the answer in it.
QUESTIONS = {
    'where are padded tokens zeroed': (
        'lite_detr_mmdet/models/layers/key_aware_deformable_attention.py',
        'key_padding_mask',
    ),
    'how does a checkpoint key map': ('lite_detr_mmdet/converters/key_rules.py', 'def key_rules'),
    'which config is the BCCD one': ('configs/lite_dino/lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_bccd.py', 'BCCD'),
    'how are GMACs counted': ('lite_detr_mmdet/analysis/compute.py', 'count_compute'),
    'where does the CUDA backward scatter': ('csrc/cuda/scatter.cuh', 'atomicAdd'),
    'how do I add a Lite host': ('docs/adding_a_detector.md', 'RegistryTransformerMixin'),
    'why is CPU gloo patched': ('lite_detr_mmdet/compat/cpu_distributed.py', 'gloo'),
    'where is the low-level FFN': (f'{LAYERS}/lite_encoder_layer.py', 'low_level_ffn'),
    "how are the quickstart's images made": ('tools/dataset_converters/generate_shapes.py', 'def draw_background'),
    'which kernel runs, and why': ('lite_detr_mmdet/ops/backend.py', 'def choose_backend'),
    "where are the paper's rows": ('configs/lite_dino/metafile.yml', 'Paper AP'),
    'how does list_models resolve a name': ('lite_detr_mmdet/zoo/names.py', 'def list_models'),
}


@pytest.mark.parametrize('question', QUESTIONS)
def test_first_guess_is_right(question):
    guess, words = QUESTIONS[question]
    assert words in (ROOT / guess).read_text(), f'{guess} does not answer: {question}'

""".dev_scripts/plot_ap_gmacs.py: draws the paper's main rows, no ablation."""

import re
import runpy
from pathlib import Path

from lite_detr_mmdet.zoo import read_metafiles

ROOT = Path(__file__).resolve().parents[2]
TOOL = '.dev_scripts/plot_ap_gmacs.py'


def test_picture(run_tool, tmp_path):
    run_tool(TOOL, '--out', tmp_path / 'figure.svg')
    assert '<svg' in (tmp_path / 'figure.svg').read_text()


def test_rows_of_the_paper():
    tool = runpy.run_path(str(ROOT / TOOL))
    zoo = {model.name: model for model in read_metafiles()}
    drawn = []
    for _, host, pattern, _, _ in tool['FAMILIES']:
        lite = tool['find_lite'](zoo, pattern)
        assert zoo[host].metadata['GMACs'] > lite[-1].metadata['GMACs'] >= lite[0].metadata['GMACs']
        drawn += [host, *(model.name for model in lite)]
    expected = [
        name
        for name, model in zoo.items()
        if 'Paper GFLOPs' in model.metadata and not re.search('[23]scale|msda|-12e', name)  # ablations, and Table 1
    ]
    assert sorted(drawn) == sorted(expected)

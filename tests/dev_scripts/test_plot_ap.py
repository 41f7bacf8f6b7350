""".dev_scripts/plot_ap.py: draws the paper's main rows, no ablation."""

import re
import runpy
from pathlib import Path

from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.zoo import read_metafiles

ROOT = Path(__file__).resolve().parents[2]
TOOL = '.dev_scripts/plot_ap.py'


def test_picture(run_tool, tmp_path):
    run_tool(TOOL, 'gmacs', '--out', tmp_path / 'figure.svg')
    assert '<svg' in (tmp_path / 'figure.svg').read_text()


def test_rows_of_the_paper():
    tool = runpy.run_path(str(ROOT / TOOL))
    zoo = {model.name: model for model in read_metafiles()}
    costs, _ = tool['read_costs']('gmacs', zoo)
    drawn = []
    for _, host, pattern, _, _ in tool['FAMILIES']:
        lite = tool['find_lite'](zoo, pattern, costs)
        assert zoo[host].metadata['GMACs'] > lite[-1][0] >= lite[0][0]
        drawn += [(costs[host], zoo[host].metadata['Paper AP']), *lite]
    expected = [
        (model.metadata['GMACs'], model.metadata['Paper AP'])
        for name, model in zoo.items()
        if 'Paper GFLOPs' in model.metadata and not re.search('[23]scale|msda|-12e', name)  # ablations, and Table 1
    ]
    assert sorted(drawn) == sorted(expected)


def test_costs_of_a_record(tmp_path):
    """Only what was measured is drawn: the record holds no Swin-T."""
    tool = runpy.run_path(str(ROOT / TOOL))
    zoo = {model.name: model for model in read_metafiles()}
    rows = [
        dict(config=name, median_s=model.metadata['GMACs'] / 100, peak_bytes=1e6 * model.metadata['GMACs'])
        for name, model in zoo.items()
        if '_r50_' in name and 'GMACs' in model.metadata
    ]
    record = Record('detectors', describe_environment(), rows, (800, 1333), 1, 'float32')
    record.write(tmp_path / 'record.json')
    tool['read_costs'].__globals__['RECORD'] = tmp_path / 'record.json'
    name = 'dino-4scale_r50_8xb2-36e_coco'
    for against, factor in (('latency', 0.01), ('memory', 1.0)):
        costs, words = tool['read_costs'](against, zoo)
        assert costs[name] == factor * zoo[name].metadata['GMACs'] and '800x1333' in words
        labels = [text.get_text() for text in tool['draw'](zoo, against).axes[0].get_legend().get_texts()]
        assert any('ResNet-50' in label for label in labels) and not any('Swin' in label for label in labels)

"""The shipped models as read from the metafiles."""

from pathlib import Path

import pytest

from lite_detr_mmdet.analysis import model_zoo, read_model_zoo

ROOT = Path(__file__).resolve().parent.parent.parent


def test_finds_every_config():
    models = read_model_zoo()
    assert {model.config for model in models} == set(ROOT.glob('configs/[!_]*/*.py'))
    assert all(model.name == model.config.stem for model in models)


def test_reads_figures_and_weights(tmp_path):
    (tmp_path / 'model-index.yml').write_text('Import:\n  - configs/a/metafile.yml\n')
    (tmp_path / 'configs' / 'a').mkdir(parents=True)
    (tmp_path / 'configs' / 'a' / 'metafile.yml').write_text(
        """
        Models:
          - {Name: m, In Collection: c, Config: configs/a/m.py, Metadata: {Paper AP: 50.4}}
          - Name: n
            In Collection: c
            Config: configs/a/n.py
            Metadata: {}
            Results: [{Task: Object Detection, Dataset: COCO, Metrics: {box AP: 50.1}}]
            Weights: https://example.org/n.pth
        """
    )
    first, second = read_model_zoo(tmp_path)
    assert first.config == tmp_path / 'configs' / 'a' / 'm.py' and first.metadata == {'Paper AP': 50.4}
    assert first.results == {} and first.weights is None
    assert second.results == {'box AP': 50.1} and second.weights.endswith('n.pth')


def test_installation_without_metafiles(monkeypatch, tmp_path):
    monkeypatch.setattr(model_zoo, 'PACKAGE', tmp_path / 'package')
    with pytest.raises(FileNotFoundError, match='looked in'):
        read_model_zoo()

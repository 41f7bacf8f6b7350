"""The shipped models as read from the metafiles."""

from pathlib import Path

from lite_detr_mmdet.zoo import metafiles, read_metafiles, shipped_models

ROOT = Path(__file__).resolve().parent.parent.parent


def test_finds_every_config():
    models = read_metafiles()
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
    first, second = read_metafiles(tmp_path)
    assert first.config == tmp_path / 'configs' / 'a' / 'm.py' and first.metadata == {'Paper AP': 50.4}
    assert first.results == {} and first.weights is None
    assert second.results == {'box AP': 50.1} and second.weights.endswith('n.pth')


def test_config_without_an_entry_has_a_name(monkeypatch, tmp_path):
    (tmp_path / 'model-index.yml').write_text('Import: []\n')
    for file in ('a/new.py', '_base_/part.py'):
        (tmp_path / 'configs' / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'configs' / file).touch()
    monkeypatch.setattr(metafiles, 'shipped_folder', lambda: tmp_path)
    (model,) = shipped_models.__wrapped__().values()
    assert model.name == 'new' and model.config.parent.name == 'a' and model.weights is None

"""The shipped models as read from the metafiles."""

import json
from pathlib import Path

import pytest
import yaml

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


@pytest.mark.parametrize('path', ['../{}', '{root}/../{}', 'configs/../../{}'])
@pytest.mark.parametrize('place', ['Import', 'Config', 'Weights'])
def test_paths_stay_in_the_folder(tmp_path, place, path):
    root = tmp_path / 'root'
    root.mkdir()

    def write(folder, **names) -> None:
        names = {**dict(Import='a.yml', Config='a.py', Weights='a.pth'), **names}
        (root / 'model-index.yml').write_text(f'Import: [{names.pop("Import")}]\n')
        entry = {**dict.fromkeys(('Name', 'In Collection'), 'a'), 'Metadata': {}, **names}
        (folder / 'a.yml').write_text(json.dumps(dict(Models=[entry])))  # JSON is YAML

    write(tmp_path)
    write(root)
    assert read_metafiles(root)[0].weights == str(root / 'a.pth')
    name = dict(Import='a.yml', Config='a.py', Weights='a.pth')[place]
    write(root, **{place: path.format(name, root=root)})
    with pytest.raises(ValueError, match=r'a metafile must name files in .*root, got .*a\.'):
        read_metafiles(root)


@pytest.mark.parametrize('place', ['model-index.yml', 'a.yml'])
def test_metafiles_are_data(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'model-index.yml').write_text('Import: [a.yml]')
    (tmp_path / place).write_text('Import: !!python/object/apply:os.mkdir ["ran"]')
    with pytest.raises(yaml.YAMLError, match='python/object'):
        read_metafiles(tmp_path)
    assert not (tmp_path / 'ran').exists()


def test_config_without_an_entry_has_a_name(monkeypatch, tmp_path):
    (tmp_path / 'model-index.yml').write_text('Import: []\n')
    for file in ('a/new.py', '_base_/part.py'):
        (tmp_path / 'configs' / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'configs' / file).touch()
    monkeypatch.setattr(metafiles, 'shipped_folder', lambda: tmp_path)
    (model,) = shipped_models.__wrapped__().values()
    assert model.name == 'new' and model.config.parent.name == 'a' and model.weights is None

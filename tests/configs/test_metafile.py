"""model-index.yml and the metafiles: what mim reads; the tables that are made from them."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.fork_server import run_script

from lite_detr_mmdet.analysis import count_config

ROOT = Path(__file__).resolve().parents[2]
METAFILES = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
# AP and GFLOPs of the authors: Tables 1 and 3 to 6 of Lite DETR, with None where there are GFLOPs of the encoder only;
# for H-DETR's other configs the model zoo of its authors, which has no GFLOPs.
PAPER = {
    'lite-dino-4scale_h2l2-2p1x3_r50_8xb2-36e_coco': (49.9, 130),
    'lite-dino-4scale_h3l1-6p1x1_r50_8xb2-36e_coco': (50.2, 141),
    'lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco': (50.4, 151),
    'lite-dino-4scale_h2l2-2p1x3_swin-t_8xb2-36e_coco': (53.1, 138),
    'lite-dino-4scale_h3l1-6p1x1_swin-t_8xb2-36e_coco': (53.3, 149),
    'lite-dino-4scale_h3l1-2p1x3_swin-t_8xb2-36e_coco': (53.9, 159),
    'lite-dino-4scale_h3l1-2p1x3-msda_r50_8xb2-36e_coco': (49.8, 147),
    'lite-dino-4scale_h2l2-2p1x3-msda_r50_8xb2-36e_coco': (49.2, 126),
    'lite-dino-4scale_h3l1-6p0x1-msda_r50_8xb2-36e_coco': (49.0, 128),
    'lite-dino-3scale_kda_r50_8xb2-36e_coco': (49.0, 125),
    'dino-3scale_r50_8xb2-36e_coco': (48.2, 122),
    'lite-dino-4scale_h2l2-6p0x1-msda_r50_8xb2-36e_coco': (45.2, 113),
    'dino-3scale_r50_8xb2-12e_coco': (48.2, 122),
    'dino-4scale_r50_8xb2-12e_coco': (50.7, 235),
    'dino-4scale_r50_8xb2-36e_coco': (50.7, 235),
    'dino-4scale_swin-t_8xb2-36e_coco': (54.1, 243),
    'deformable-detr-refine-twostage-4scale_r50_16xb2-50e_coco': (46.8, 177),
    'deformable-detr-refine-twostage-3scale_r50_16xb2-50e_coco': (44.0, None),
    'deformable-detr-refine-twostage-2scale_r50_16xb2-50e_coco': (40.3, None),
    'lite-deformable-detr_h2l2-2p1x3_r50_16xb2-50e_coco': (45.8, 108),
    'lite-deformable-detr_h3l1-6p1x1_r50_16xb2-50e_coco': (45.9, 115),
    'lite-deformable-detr_h3l1-3p1x2_r50_16xb2-50e_coco': (46.2, 119),
    'lite-deformable-detr_h3l1-2p1x3_r50_16xb2-50e_coco': (46.7, 123),
    'lite-deformable-detr_h3l1-2p1x4_r50_16xb2-50e_coco': (46.6, None),
    'h-detr_o2o_r50_8xb2-36e_coco': (49.0, None),
    'h-detr_r50_8xb2-12e_coco': (48.7, None),
    'h-detr_r50_8xb2-36e_coco': (50.0, 226),
    'h-detr_swin-t_8xb2-12e_coco': (50.6, None),
    'h-detr_swin-t_8xb2-36e_coco': (53.2, 234),
    'lite-h-detr_h2l2-2p1x3_swin-t_8xb2-36e_coco': (52.3, 131),
    'lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco': (49.5, 142),
    'lite-h-detr_h3l1-2p1x3_swin-t_8xb2-36e_coco': (53.0, 152),
    'lite-h-detr_h3l1-6p1x1_swin-t_8xb2-36e_coco': (52.7, 142),
}


def read(metafile: str) -> dict:
    return yaml.safe_load((ROOT / metafile).read_text())


def all_models() -> list:
    return [model for metafile in METAFILES for model in read(metafile)['Models']]


def test_every_metafile_is_imported():
    assert sorted(METAFILES) == sorted(str(path.relative_to(ROOT)) for path in ROOT.glob('configs/*/metafile.yml'))


def test_every_config_is_listed_once():
    listed = [model['Config'] for model in all_models()]
    files = [str(path.relative_to(ROOT)) for path in ROOT.glob('configs/[!_]*/*.py')]
    assert sorted(listed) == sorted(files)


@pytest.mark.parametrize('metafile', METAFILES)
def test_entries(metafile):
    content = read(metafile)
    collections = {collection['Name'] for collection in content['Collections']}
    for collection in content['Collections']:
        assert (ROOT / collection['README']).is_file()
        assert collection['Name'] == collection['Name'].lower()
        assert collection['Metadata']['Training Techniques'] and collection['Metadata']['Architecture']
        code = collection['Code']['URL']
        assert code.startswith('https://') or (ROOT / code).is_file()
    for model in content['Models']:
        path = ROOT / model['Config']
        assert path.is_file() and path.stem == model['Name'] == model['Name'].lower()
        assert model['In Collection'] in collections
        assert f'-{model["Metadata"]["Epochs"]}e_' in model['Name']
        # Results are what was measured with weights; without weights there are none.
        assert 'Weights' in model or 'Results' not in model


def test_figures_of_the_paper():
    found = {}
    for model in all_models():
        metadata = model['Metadata']
        if 'Paper AP' in metadata:
            found[model['Name']] = metadata['Paper AP'], metadata.get('Paper GFLOPs')
            assert metadata['Paper Source'].startswith(('Table', 'model zoo of https://'))
            if metadata['Paper Source'].startswith('Table'):
                assert 'Paper GFLOPs' in metadata or 'Paper Encoder GFLOPs' in metadata
                assert 15 < metadata['Paper APS'] < metadata['Paper AP'] - 10
    assert found == PAPER


def test_totals_are_those_of_the_paper():
    """Every total of Tables 1, 4 and 5 but those that docs/compute.md explains."""
    explained = {
        'lite-dino-4scale_h3l1-2p1x3-msda_r50_8xb2-36e_coco': 0.021,
    }
    rows = [model for model in all_models() if 'Paper GFLOPs' in model['Metadata']]
    rows = [model for model in rows if not model['Metadata']['Paper Source'].startswith(('Table 3', 'Tables 3'))]
    assert len(rows) == 22
    for model in rows:
        difference = model['Metadata']['GMACs'] / model['Metadata']['Paper GFLOPs'] - 1
        if model['Name'] in explained:
            assert difference == pytest.approx(explained[model['Name']], abs=5e-4)
        else:
            assert abs(difference) <= 0.02, model['Name']


def test_every_model_is_counted_and_figures_are_current():
    record = json.loads((ROOT / 'benchmarks' / 'results' / 'compute.json').read_text())
    results = record['results']
    assert sorted([*results['models'], *results['uncounted']]) == sorted(model['Name'] for model in all_models())
    for name in ('lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco', 'h-detr_r50_8xb2-36e_coco'):
        (config,) = [model['Config'] for model in all_models() if model['Name'] == name]
        assert count_config(str(ROOT / config), record['shape']) == results['models'][name]


def test_tables_are_up_to_date():
    result = run_script(ROOT / '.dev_scripts' / 'update_model_zoo.py', '--check')
    assert result.returncode == 0, result.stderr


def test_parts_of_table_1():
    """The paper's decoder is what is left: neck, head and proposals included."""
    record = json.loads((ROOT / 'benchmarks' / 'results' / 'compute.json').read_text())['results']['models']
    rows = [model for model in all_models() if model['Metadata'].get('Paper Source') == 'Table 1']
    assert len(rows) == 2
    for model in rows:
        data, counted = model['Metadata'], record[model['Name']]['gmacs']
        rest = counted['total'] - counted['backbone'] - counted['encoder']
        assert counted['backbone'] == pytest.approx(data['Paper Backbone GFLOPs'], abs=0.5)
        assert counted['encoder'] == pytest.approx(data['Paper Encoder GFLOPs'], abs=3)
        assert rest == pytest.approx(data['Paper Decoder GFLOPs'], abs=3)
        parts = (data[f'Paper {part} GFLOPs'] for part in ('Backbone', 'Encoder', 'Decoder'))
        assert sum(parts) == data['Paper GFLOPs']


def test_rows_that_are_no_rows_say_so():
    notes = {model['Name']: model['Metadata'] for model in all_models() if 'Paper Note' in model['Metadata']}
    assert 'misprint' in notes['lite-deformable-detr_h2l2-6p1x1_r50_16xb2-50e_coco']['Paper Note']
    assert 'Paper AP' not in notes['lite-deformable-detr_h2l2-6p1x1_r50_16xb2-50e_coco']
    assert 'No row of the paper' in notes['dino-2scale_r50_8xb2-36e_coco']['Paper Note']

"""Publishing and converting write neither through links nor over other files, and nothing that is broken."""

import pytest
import torch

import lite_detr_mmdet
from lite_detr_mmdet.apis.publish import publish_model
from lite_detr_mmdet.checkpoint import CheckpointError, config_from_json, load_checkpoint_file
from lite_detr_mmdet.converters.files import convert_mmdet_file


def test_existing_files_are_left_alone(checkpoint, tmp_path):
    published = publish_model(checkpoint, tmp_path, name='small')
    before = published.path.read_bytes()
    published.card.write_text('edited')
    with pytest.raises(FileExistsError, match='already exists'):
        publish_model(checkpoint, tmp_path, name='small')
    assert published.card.read_text() == 'edited' and published.path.read_bytes() == before
    published.path.unlink()
    with pytest.raises(FileExistsError, match=r'\.md already exists'):
        publish_model(checkpoint, tmp_path, name='small')
    assert published.card.read_text() == 'edited' and not published.path.exists()
    publish_model(checkpoint, tmp_path, name='small', overwrite=True)
    assert published.card.read_text().startswith('# small')
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ['.md', '.pth']


@pytest.mark.parametrize('which', ['path', 'card'])
def test_links_are_not_followed(checkpoint, tmp_path, which):
    published = publish_model(checkpoint, tmp_path / 'zoo', name='small')
    target = getattr(published, which)
    victim = tmp_path / 'victim'
    victim.write_text('mine')
    target.unlink()
    target.symlink_to(victim)
    for overwrite in (False, True):
        with pytest.raises(FileExistsError):
            publish_model(checkpoint, tmp_path / 'zoo', name='small', overwrite=overwrite)
    assert victim.read_text() == 'mine'


def test_published_config_is_json_and_text(checkpoint, tmp_path):
    meta = load_checkpoint_file(publish_model(checkpoint, tmp_path, name='small').path)['meta']
    values = config_from_json(meta['cfg_json'])
    assert values['model']['type'] == 'LiteDINO' and "type='LiteDINO'" in meta['cfg']
    assert isinstance(values['test_dataloader']['dataset']['pipeline'][1]['scale'], (list, tuple))


def test_folders_of_the_run_are_not_kept(checkpoint, tmp_path):
    content = load_checkpoint_file(checkpoint)
    content['meta']['experiment_name'] = '../../Evil_20200101_000000'
    content['meta']['cfg'] += "\nfile = '/home/me/a.json'\n"
    torch.save(content, tmp_path / 'a.pth')
    published = publish_model(tmp_path / 'a.pth', tmp_path / 'zoo')
    assert published.path.parent == tmp_path / 'zoo' and published.path.name.startswith('evil-')
    meta = load_checkpoint_file(published.path)['meta']
    assert '/home/me' not in str(meta) and "file = 'a.json'" in meta['cfg']


def test_text_of_the_card_is_text(checkpoint, tmp_path):
    content = load_checkpoint_file(checkpoint)
    content['meta']['dataset_meta'] = dict(classes=('<script>alert(1)</script>', '[a](http://x)', 'a|b\n\n# Title'))
    content['meta']['converted_from'] = dict(file='`x`\n# Title', sha256=3)
    torch.save(content, tmp_path / 'a.pth')
    card = publish_model(tmp_path / 'a.pth', tmp_path / 'zoo', name='small').card.read_text()
    assert '<script>' not in card and '](' not in card and '\n# Title' not in card


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite(checkpoint, tmp_path, value):
    content = load_checkpoint_file(checkpoint)
    content['state_dict']['level_embed'][0, 0] = value
    path = tmp_path / 'bad.pth'
    torch.save(content, path)
    for use in (
        lambda: publish_model(path, tmp_path / 'zoo', name='small'),
        lambda: lite_detr_mmdet.Detector(weights=path, device='cpu'),
        lambda: convert_mmdet_file(path, tmp_path / 'converted.pth'),
    ):
        with pytest.raises(CheckpointError, match=r'bad\.pth holds weights that are not finite: level_embed'):
            use()
    assert not (tmp_path / 'zoo').exists() and not (tmp_path / 'converted.pth').exists()


def test_target_that_is_the_source(checkpoint, tmp_path):
    path = tmp_path / 'a.pth'
    path.write_bytes(checkpoint.read_bytes())
    with pytest.raises(FileExistsError, match='must be another file than the source'):
        convert_mmdet_file(path, path, overwrite=True)
    assert path.read_bytes() == checkpoint.read_bytes()

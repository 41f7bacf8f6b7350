"""A config that comes with a checkpoint is data: whoever reads it, nothing in it runs or is imported."""

import ast

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner

import lite_detr_mmdet
from lite_detr_mmdet.apis.embedded_config import inference_config
from lite_detr_mmdet.apis.publish import publish_model
from lite_detr_mmdet.checkpoint import (
    CheckpointError,
    ConfigTextError,
    config_from_json,
    config_text,
    config_to_json,
    load_checkpoint_file,
    parse_config_text,
)


def code(marker) -> list:
    """Texts that leave a file behind if they are executed."""
    call = f"__import__('os').system('touch {marker}')"
    return [
        f'{call}\n',
        f'model = dict(type={call})\n',
        f'import os\nos.system("touch {marker}")\n',
        f'a = 1\nb = [{call} for _ in (1,)]\n',
        f"a = f'{{{call}}}'\n",
        f'a = (lambda: {call})()\n',
        f'def f(x={call}): pass\n',
        f'class A: x = {call}\n',
        f'a = dict(**{{"b": {call}}})\n',
        f'a = eval("{call!s}")\n',
        f'a = 1 if {call} else 2\n',
        f'a: {call} = 1\n',
        f'with open("{marker}", "w"): pass\n',
    ]


@pytest.mark.parametrize('place, index', [*(('cfg', index) for index in range(13)), ('message_hub', 0)])
def test_code_in_the_config_does_not_run(checkpoint, tmp_path, place, index):
    marker = tmp_path / 'ran'
    content = load_checkpoint_file(checkpoint)
    text = code(marker)[index] + content['meta']['cfg']
    if place == 'cfg':
        content['meta']['cfg'] = text
    else:  # which mmdet's inferencer prefers
        content['message_hub'] = dict(runtime_info=dict(cfg=text), log_scalars={}, resumed_keys={})
    path = tmp_path / 'evil.pth'
    torch.save(content, path)
    if place == 'cfg':
        with pytest.raises(CheckpointError, match=r'evil\.pth is refused: the config that it holds .* line \d+ '):
            lite_detr_mmdet.Detector(weights=path, device='cpu')
        with pytest.raises(CheckpointError, match=r'evil\.pth is refused: the config that it holds .* line \d+ '):
            publish_model(path, tmp_path / 'zoo')
    else:
        lite_detr_mmdet.Detector(weights=path, device='cpu')
        publish_model(path, tmp_path / 'zoo')
    CheckpointLoader.load_checkpoint(str(path))  # weights to start from: they are used, their config is left out
    assert not marker.exists()


@pytest.mark.parametrize(
    'name',
    [
        'subprocess.Popen',
        'os.system',
        'builtins.exec',
        'mmengine.fileio.load',
        'mmengine.load',
        'mmdet.apis.init_detector',
        'lite_detr_mmdet.models.LiteDINO',
        'torch.load',
        'KnowledgeDistillationSingleStageDetector',
        'LAD',
        'NoSuchDetector',
        None,
        3,
    ],
)
@pytest.mark.parametrize('place', ['model', 'backbone', 'pipeline'])
def test_types_of_the_config_are_parts_of_detectors(checkpoint, tmp_path, name, place):
    marker = tmp_path / 'ran'
    content = load_checkpoint_file(checkpoint)
    cfg = Config(parse_config_text(content['meta']['cfg']), format_python_code=False)
    part = dict(type=name, args=['touch', str(marker)])
    if place == 'model':
        cfg.model = part
    elif place == 'backbone':
        cfg.model.backbone = part
    else:
        cfg.test_dataloader.dataset.pipeline.insert(0, part)
    content['meta']['cfg'] = cfg.pretty_text
    torch.save(content, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match=r'evil\.pth is refused: its config asks for'):
        lite_detr_mmdet.Detector(weights=tmp_path / 'evil.pth', device='cpu')
    assert not marker.exists()


@pytest.mark.parametrize(
    'change',
    [
        dict(custom_imports=dict(imports=['antigravity'])),
        dict(teacher_config='evil.py'),
        dict(_scope_='antigravity'),
        dict(language_model=dict(type='BertModel', name='/tmp/evil')),
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_read_or_import(checkpoint, tmp_path, change):
    content = load_checkpoint_file(checkpoint)
    cfg = Config(parse_config_text(content['meta']['cfg']), format_python_code=False)
    cfg.model.update(change)
    content['meta']['cfg'] = cfg.pretty_text
    torch.save(content, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='is refused: its config'):
        lite_detr_mmdet.Detector(weights=tmp_path / 'evil.pth', device='cpu')


GOOD = dict(
    model=dict(type='LiteDINO', backbone=dict(type='ResNet')),
    test_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')])),
)


def inference(**changes) -> Config:
    return inference_config('a.pth', dict(cfg_json=config_to_json({**GOOD, **changes})))


@pytest.mark.parametrize(
    'changes, fault',
    [
        (dict(model=None), 'holds a config without a model'),
        (dict(model=dict(backbone='evil.py')), 'holds a config without a model'),
        (dict(test_dataloader=None), 'holds a config without a test pipeline'),
        (dict(test_dataloader=dict(dataset=dict(pipeline='evil.py'))), 'holds a config without a test pipeline'),
    ],
)
def test_configs_without_what_is_needed(changes, fault):
    assert inference().model.type == 'LiteDINO'
    with pytest.raises(CheckpointError, match=f'^a.pth {fault}'):
        inference(**changes)


def test_config_as_json_or_as_text():
    text = "model = dict(type='LiteDINO')\ntest_dataloader = dict(dataset=dict(pipeline=[]))"
    assert inference_config('a.pth', dict(cfg_json=3, cfg=text)).model.type == 'LiteDINO'
    for meta in ({}, dict(cfg_json=3), dict(cfg=3)):
        with pytest.raises(CheckpointError, match=r'^a\.pth holds no config'):
            inference_config('a.pth', meta)


def test_nothing_else_of_the_config_is_kept():
    metainfo = dict(classes=['a'], palette='evil.py', other=['x'])
    dataset = dict(GOOD['test_dataloader']['dataset'], type='evil', ann_file='evil.pkl', metainfo=metainfo)
    cfg = inference(test_dataloader=dict(dataset=dataset), default_scope='evil', visualizer=dict(type='evil'), evil=1)
    assert set(cfg) == {'default_scope', 'model', 'test_dataloader', 'visualizer'} and cfg.default_scope == 'mmdet'
    pipeline = GOOD['test_dataloader']['dataset']['pipeline']
    kept = dict(type='CocoDataset', metainfo=dict(classes=['a']), pipeline=pipeline)
    assert cfg.test_dataloader == dict(dataset=kept) and cfg.visualizer.type == 'DetLocalVisualizer'


@pytest.mark.parametrize('key', ['init_cfg', 'pretrained', 'backend_args', 'file_client_args'])
@pytest.mark.parametrize('depth', [0, 1, 2])
def test_weights_come_from_the_checkpoint_alone(key, depth):
    part = dict(type='ResNet', **{key: 'evil.pth'})
    if depth:
        part = dict(type='ResNet', parts=[part] if depth == 1 else (1, dict(a=part)))
    model = inference(model=dict(type='LiteDINO', backbone=part)).model
    assert 'evil' not in str(model) and 'ResNet' in str(model)
    transform = dict(type='LoadImageFromFile', **{key: 'evil'})
    cfg = inference(test_dataloader=dict(dataset=dict(pipeline=[transform])))
    assert cfg.test_dataloader.dataset.pipeline == [dict(type='LoadImageFromFile')]


@pytest.mark.parametrize('depth', [0, 1, 2])
@pytest.mark.parametrize(
    'part',
    [
        dict(type='os.system'),
        dict(type='LAD'),
        dict(type='KnowledgeDistillationSingleStageDetector'),
        dict(type='torch.nn.Linear'),
        dict(type='evil.ResNet'),
        dict(type=['ResNet']),
        dict(_scope_='evil'),
        dict(teacher_ckpt='evil.pth'),
        dict(teacher_config='evil.py'),
        dict(custom_imports={}),
        dict(type='BertModel', name='evil'),
        dict(type='BertModel'),
    ],
    ids=str,
)
def test_parts_that_are_refused_wherever_they_stand(part, depth):
    for _ in range(depth):
        part = dict(a=[1, (part,)])
    with pytest.raises(CheckpointError, match=r'^a\.pth is refused: its config'):
        inference(model=dict(type='LiteDINO', part=part))


@pytest.mark.parametrize(
    'transform', ['LoadImageFromFile', {}, dict(type=3), dict(type='mmcv.Resize'), dict(type='X')]
)
def test_transforms_that_are_refused(transform):
    with pytest.raises(CheckpointError, match=r'^a\.pth is refused: its config asks for the transform'):
        inference(test_dataloader=dict(dataset=dict(pipeline=[transform])))
    assert inference(test_dataloader=dict(dataset=dict(pipeline=[dict(type='mmdet.Resize')])))


def test_transforms_read_from_nowhere_else():
    transform = dict(type='LoadImageFromFile', backend_args=dict(backend='http'), _scope_='x', to_float32=True)
    cfg = inference(test_dataloader=dict(dataset=dict(pipeline=[transform])))
    assert cfg.test_dataloader.dataset.pipeline == [dict(type='LoadImageFromFile', to_float32=True)]


def test_classes_that_somebody_else_registered(monkeypatch):
    """Another package may be imported in the same process and register what it likes."""
    for module in ('evil', 'mmdet_of_somebody', 'torchevil.models'):
        monkeypatch.setitem(MODELS.module_dict, 'Evil', type('Evil', (), dict(__module__=module)))
        with pytest.raises(CheckpointError, match="asks for 'Evil', which is not a part of a known detector"):
            inference(model=dict(type='Evil'))
    monkeypatch.setitem(MODELS.module_dict, 'Evil', type('Evil', (), dict(__module__='mmdet.models')))
    assert inference(model=dict(type='Evil'))


def test_nothing_outside_of_model_and_pipeline_counts(checkpoint, tmp_path):
    content = load_checkpoint_file(checkpoint)
    cfg = Config(parse_config_text(content['meta']['cfg']), format_python_code=False)
    cfg.custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='http://127.0.0.1:9/evil.pth')
    cfg.test_dataloader.dataset.update(type='subprocess.Popen', ann_file='http://127.0.0.1:9/evil.pkl')
    cfg.visualizer = dict(type='os.system')
    cfg.default_scope = 'antigravity'
    content['meta']['cfg'] = cfg.pretty_text
    torch.save(content, tmp_path / 'a.pth')
    detector = lite_detr_mmdet.Detector(weights=tmp_path / 'a.pth', device='cpu', show_progress=False)
    image = torch.zeros(48, 64, 3, dtype=torch.uint8).numpy()
    assert len(detector(image, pred_score_thr=0)['predictions'][0]['scores']) == 10


@pytest.mark.parametrize('key', ['cfg', 'config'])
def test_resuming_refuses_code(trained, config, tiny_options, run_tool, tmp_path, key):
    marker = tmp_path / 'ran'
    content = load_checkpoint_file(trained.checkpoint)
    content['meta'][key] = f"__import__('os').system('touch {marker}')\n" + content['meta']['cfg']
    torch.save(content, tmp_path / 'evil.pth')
    arguments = ('--work-dir', tmp_path / 'run', '--resume', tmp_path / 'evil.pth', *tiny_options)
    result = run_tool('tools/train.py', config, *arguments, check=False)
    assert result.returncode == 1 and 'Epoch(train)' not in result.output and not marker.exists()
    assert f"evil.pth is refused: the config that it holds as '{key}' is not data: line 1 holds" in result.output


def test_config_that_the_runner_executes_is_a_literal(checkpoint, tmp_path):
    content = load_checkpoint_file(checkpoint)
    content['meta']['config'] = "gpu_ids = [0, 1]\ncustom_imports = dict(imports=['antigravity'])\n"
    torch.save(content, tmp_path / 'a.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert loaded['meta']['config'] == 'gpu_ids = [0, 1]'
    assert Runner.resume.guarded


@pytest.mark.parametrize(
    'text',
    [
        '(' * 100_000,
        '[' * 40 + ']' * 40 + ')',
        '-' * 100_000 + '1',
        'a = ' + '-' * 5000 + '1',
        'a = ' + '1+' * 50_000 + '1',
        'a = ' + 'not ' * 50_000 + '1',
        'a' + '.a' * 50_000,
        'a = ' + '[' * 200 + ']' * 200,
        'a = "' + 'x' * 5_000_000 + '"',
        'a = "unclosed',
        "a = '''unclosed",
        'a = 1\0',
        'a = \\',
        '\tb = 1',
        'a = 0777',
        'a = 1' + '0' * 10_000,
        '_base_ = "/tmp/evil.py"',
        '__builtins__ = 1',
        'a, b = 1, 2',
        'a = b = 1',
        'a.b = 1',
        'a[0] = 1',
        'a = {1, 2}',
        'a = {**b}',
        'a = dict([(1, 2)])',
        'a = {[]: 1}',
        'a = b',
        'a = 1j',
        'a = b"x"',
        'a = ...',
        '1',
        'a = dict(1)',
        'a = -"x"',
    ],
    ids=lambda text: text[:12],
)
def test_texts_that_are_no_configs(text):
    with pytest.raises(ConfigTextError, match=r'line|characters'):
        parse_config_text(text)


@pytest.mark.parametrize(
    'text, fault',
    [
        ('a = 1 + 1', "line 1 holds '+'"),
        ('a = - - 1', "line 1 holds '-'"),
        ('a = not 1', "line 1 holds 'not'"),
        ('a = 1\n  b = 1', 'line 2 is indented'),
        ('a = list(b=1)', 'line 1 is not a literal'),
        ('a = dict({1: 1}, {2: 2})', 'line 1 is not a literal'),
        ('a = 1\n\x1b[2J', r"line 2 .*: '\\x1b\[2J'; a config"),
    ],
)
def test_what_is_wrong_is_said(text, fault):
    """Of the tokens, before Python's parser sees the text."""
    with pytest.raises(ConfigTextError, match=fault.replace('+', r'\+') if 'holds' in fault else fault):
        parse_config_text(text)


@pytest.mark.parametrize(
    'text',
    ['{**{}}', 'dict(**{})', '1 + 1', 'not 1', 'a.b', 'print(a=1)', '[x for x in ()]', '{1}', '- -1.5 + 0', 'x:=1'],
)
def test_literals_are_checked_beside_the_tokens(text):
    """Either check alone keeps code out."""
    with pytest.raises(ConfigTextError, match='is not a literal'):
        config_text._literal(ast.parse(f'({text})', mode='eval').body, [text])


def test_every_shipped_config_is_read_as_it_is(config):
    """What ``Config.dump`` writes is understood, by way of text and of JSON, types included."""
    shipped = sorted(path for path in config.parent.parent.glob('*/*.py') if path.parent.name != '_base_')[::6]
    for path in shipped:
        values = Config.fromfile(path).to_dict()
        parsed = parse_config_text(Config(values, format_python_code=path == shipped[0]).pretty_text)
        assert parsed == values, path  # tuples and lists differ
        assert config_from_json(config_to_json(values)) == values


def test_special_values_survive():
    values = dict(a=float('inf'), b=-1.5, c=(1, (2,), ()), d={1: 'x', (1, 2): None}, e='it\'s "so"\n', f=[True, None])
    text = (
        'a=inf\nb=-1.5\nc=(1, (2,), ())\nd=dict({1: "x", (1, 2): None})\ne=' + repr(values['e']) + '\nf=[True, None]'
    )
    assert parse_config_text(text) == values and config_from_json(config_to_json(values)) == values


@pytest.mark.parametrize('text', ['', '[]', '{"__tuple__": 3}', '{"__items__": 3}', '[' * 10_000, '{"a": NaN', '3'])
def test_json_that_is_no_config(text):
    with pytest.raises(ConfigTextError):
        config_from_json(text)


@pytest.mark.parametrize(
    'text, fault',
    [
        ('{"a": "' + 'x' * 2_000_000 + '"}', 'has 2000009 characters'),
        ('{"a": ' + '[' * 200 + ']' * 200 + '}', 'is nested too deeply'),
        ('{"a": 1' + '0' * 30 + '}', 'an integer of more than 64 bits'),
        ('{"a": -1' + '0' * 30 + '}', 'an integer of more than 64 bits'),
        ('3', 'must be a table of values by name'),
    ],
    ids=['long', 'deep', 'integer', 'negative', 'number'],
)
def test_json_that_takes_long(text, fault):
    with pytest.raises(ConfigTextError, match=fault):
        config_from_json(text)

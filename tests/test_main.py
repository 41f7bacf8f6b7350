"""``python -m lite_detr_mmdet``: every command is a tool that is there, and gets its arguments."""

import pytest

from lite_detr_mmdet.__main__ import COMMANDS, main, usage
from lite_detr_mmdet.zoo import shipped_folder


def test_every_command_is_a_shipped_tool():
    assert all((shipped_folder() / path).is_file() for path, _ in COMMANDS.values())


def test_help(capsys):
    main(['--help'])
    assert capsys.readouterr().out.strip() == usage() and all(name in usage() for name in COMMANDS)


def test_unknown_command(capsys):
    with pytest.raises(SystemExit) as error:
        main(['tran'])
    assert error.value.code == 2 and "there is no command 'tran'" in capsys.readouterr().err


def test_tools_of_mmdet_on_configs_of_this_package(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['before'])
    main(['mmdet', 'print_config', 'lite-dino-4scale_h3l1-2p1x3_r50_8xb2-12e_coco'])
    assert "type='LiteDINO'" in capsys.readouterr().out
    with pytest.raises(SystemExit) as error:
        main(['mmdet', 'brows_dataset'])
    shown = capsys.readouterr().err
    assert error.value.code == 2 and 'browse_dataset' in shown and 'confusion_matrix' in shown


def test_arguments_are_passed_on(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['before'])
    with pytest.raises(SystemExit) as error:
        main(['flops', 'no-such-model'])
    assert error.value.code == 2 and "'no-such-model' is not a model" in capsys.readouterr().err

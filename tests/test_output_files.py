"""Files are written whole, in an order that a power failure cannot spoil; what cannot be written is refused early."""

import argparse
import errno
import os
import stat

import pytest

from lite_detr_mmdet import output_files
from lite_detr_mmdet.checkpoint import save_checkpoint_file
from lite_detr_mmdet.output_files import (
    check_output,
    output_file,
    output_pair,
    prepare_output,
    write_text,
    write_whole,
)


def write_checkpoint(path):
    save_checkpoint_file(dict(a=1), path)


def write_letter(path):
    write_text('a', path)


@pytest.mark.parametrize('write', [write_letter, write_checkpoint])
def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch, write):
    done = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        done.append('folder' if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 'file')
        fsync(descriptor)

    def recorded_replace(source, target):
        done.append('name')
        replace(source, target)

    monkeypatch.setattr(output_files.os, 'fsync', recorded_fsync)
    monkeypatch.setattr(output_files.os, 'replace', recorded_replace)
    write(tmp_path / 'a.txt')
    assert done == ['file', 'name', 'folder']
    (tmp_path / 'other').touch()
    assert (tmp_path / 'a.txt').stat().st_mode == (tmp_path / 'other').stat().st_mode  # others may read it, too


@pytest.mark.parametrize('write', [write_letter, write_checkpoint])
@pytest.mark.parametrize('call', ['open', 'fsync'])
def test_file_systems_that_cannot_flush_names(tmp_path, monkeypatch, call, write):
    original = getattr(os, call)

    def refuse(target, *args, **kwargs):
        if os.path.isdir(target):
            raise OSError(errno.EINVAL, 'Invalid argument')
        return original(target, *args, **kwargs)

    monkeypatch.setattr(output_files.os, call, refuse)
    write(tmp_path / 'a.txt')
    assert os.listdir(tmp_path) == ['a.txt']


def test_what_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('before')

    def write(file):
        file.write(b'half')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, write)
    assert path.read_text() == 'before' and os.listdir(tmp_path) == ['a.txt']


@pytest.fixture
def unusable(tmp_path):
    """Files that cannot be written, and what is said of them."""
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').touch()
    (tmp_path / 'link').symlink_to(tmp_path / 'file')
    (tmp_path / 'dangling').symlink_to(tmp_path / 'none')
    names = {'folder': 'folder', 'link': 'link', 'dangling': 'link', 'file/a': 'folder'}
    return {tmp_path / name: word for name, word in names.items()}


def test_unusable_outputs_are_refused_before_the_work(unusable):
    for path, word in unusable.items():
        with pytest.raises(OSError, match=f'must .*{word}'):
            check_output(path)
        with pytest.raises(argparse.ArgumentTypeError, match=f'must .*{word}'):
            output_file(str(path))


def test_folders_of_outputs_are_made(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'a.txt'
    with pytest.raises(FileNotFoundError, match='folder that exists'):
        check_output(path)
    assert output_file(str(path)) == path and not path.parent.exists()
    write_text('\u00e4', prepare_output(path))
    assert path.read_text(encoding='utf-8') == '\u00e4'


@pytest.mark.parametrize('text', ['', 'new/', '.'])
def test_names_that_are_no_files(text):
    with pytest.raises(argparse.ArgumentTypeError, match='must be a file to write'):
        output_file(text)


@pytest.mark.parametrize('suffix', ['.json', '.md'])
def test_pairs_of_outputs(tmp_path, suffix):
    out = str(tmp_path / 'new' / 'version1.2')
    assert str(output_pair(out)) == out
    os.makedirs(f'{out}{suffix}')
    with pytest.raises(argparse.ArgumentTypeError, match=f'got the folder .*version1.2{suffix}'):
        output_pair(out)


@pytest.mark.parametrize('text', ['', 'new/', '.'])
def test_names_that_are_no_pairs(text):
    with pytest.raises(argparse.ArgumentTypeError, match='must be a file to write, without suffix'):
        output_pair(text)

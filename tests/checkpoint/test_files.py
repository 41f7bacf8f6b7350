"""Files are written whole and safely, in an order that a power failure cannot spoil."""

import errno
import os
import stat

import pytest

from lite_detr_mmdet.checkpoint import check_target, files, save_checkpoint_file


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        done.append('folder' if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 'file')
        fsync(descriptor)

    def recorded_replace(source, target):
        done.append('name')
        replace(source, target)

    monkeypatch.setattr(files.os, 'fsync', recorded_fsync)
    monkeypatch.setattr(files.os, 'replace', recorded_replace)
    save_checkpoint_file(dict(a=1), tmp_path / 'a.pth')
    assert done == ['file', 'name', 'folder']
    (tmp_path / 'other').touch()
    assert (tmp_path / 'a.pth').stat().st_mode == (tmp_path / 'other').stat().st_mode  # others may read it, too


@pytest.mark.parametrize('call', ['open', 'fsync'])
def test_file_systems_that_cannot_flush_names(tmp_path, monkeypatch, call):
    original = getattr(os, call)

    def refuse(target, *args, **kwargs):
        if os.path.isdir(target):
            raise OSError(errno.EINVAL, 'Invalid argument')
        return original(target, *args, **kwargs)

    monkeypatch.setattr(files.os, call, refuse)
    save_checkpoint_file(dict(a=1), tmp_path / 'a.pth')
    assert os.listdir(tmp_path) == ['a.pth']


def test_links_are_no_targets(tmp_path):
    source, link = tmp_path / 'a.pth', tmp_path / 'link.pth'
    source.write_text('a')
    for other in (tmp_path / 'other', tmp_path / 'none'):
        (tmp_path / 'other').write_text('b')
        link.unlink(missing_ok=True)
        link.symlink_to(other)
        with pytest.raises(FileExistsError, match='must not be a link'):
            check_target(source, link, overwrite=True)

"""What a file may be written over."""

import pytest

from lite_detr_mmdet.checkpoint import check_target


def test_links_are_no_targets(tmp_path):
    source, link = tmp_path / 'a.pth', tmp_path / 'link.pth'
    source.write_text('a')
    for other in (tmp_path / 'other', tmp_path / 'none'):
        (tmp_path / 'other').write_text('b')
        link.unlink(missing_ok=True)
        link.symlink_to(other)
        with pytest.raises(FileExistsError, match='must not be a link'):
            check_target(source, link, overwrite=True)

"""The documentation site: it builds without a warning, fetches nothing, and its pictures are up to date."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.process


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The site, built strictly."""
    if not all(map(find_spec, ('mkdocs', 'material', 'mkdocstrings'))):
        pytest.skip('needs MkDocs Material and mkdocstrings: pip install -r requirements/docs.txt')
    folder = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(folder)]
    environment = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_nothing_is_fetched_from_elsewhere(site):
    pages = sorted(site.rglob('*.html'))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="?(https?:[^">]+)', text)
        loaded += re.findall(r'<link[^>]*rel="?(?:stylesheet|preload|preconnect)"?[^>]*href="?(https?:[^">]+)', text)
        assert not loaded, f'{page.name} loads {loaded}'


def test_operators_are_described_by_their_docstrings(site):
    text = (site / 'operator_api.html').read_text()
    assert 'lite_detr_mmdet.ops.functional.key_aware_deform_attn' in text and 'sampling_offsets' in text
    assert 'Projected queries, (bs, num_queries, num_heads, head_dim)' in text


def test_links_to_files_lead_to_pages_of_the_site(site):
    text = (site / 'adding_a_detector.html').read_text()
    assert 'href="source/configs/_base_/models/lite_detr.py.html"' in text
    assert 'KeyAwareDeformableAttention' in (site / 'source/configs/_base_/models/lite_detr.py.html').read_text()
    assert 'href="../' not in (site / 'model_zoo.html').read_text()


def test_tables_can_be_sorted(site):
    assert 'assets/sort_tables.js' in (site / 'model_zoo.html').read_text()


def test_pictures_are_up_to_date():
    script = ROOT / '.dev_scripts' / 'draw_concepts.py'
    result = subprocess.run([sys.executable, str(script), '--check'], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

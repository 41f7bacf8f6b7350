"""The documentation site: it builds without a warning, fetches nothing, and its pictures are up to date."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
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
    assert (
        'lite_detr_mmdet.ops.functional.key_aware_deform_attn' in text
        and 'sampling_offsets' in text
        and ':func:' not in text
    )
    assert 'Projected queries, (bs, num_queries, num_heads, head_dim)' in text


def test_links_to_files_lead_to_pages_of_the_site(site):
    text = (site / 'adding_a_detector.html').read_text()
    assert 'href="source/configs/_base_/models/lite_detr.py.html"' in text
    assert 'KeyAwareDeformableAttention' in (site / 'source/configs/_base_/models/lite_detr.py.html').read_text()
    assert 'href="../' not in (site / 'model_zoo.html').read_text()


@pytest.fixture
def served(site):
    """Address of the site, served on this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_tables_are_sorted_by_a_click(site, browser):
    page = browser.new_page()
    page.goto(f'file://{site}/model_zoo.html')
    table = page.locator('table', has=page.get_by_role('columnheader', name='GMACs'))

    def column(index: int) -> list:
        return table.locator(f'tbody tr td:nth-child({index})').all_inner_texts()

    assert 'assets/sort_tables.js' in page.content()
    for heading, index, sign in (('GMACs', 7, 1), ('GMACs', 7, -1), ('AP (paper)', 4, 1)):
        table.get_by_role('columnheader', name=heading).click()
        values = column(index)
        measured = [value for value in values if value != '-']
        assert len(measured) > 20 and values[: len(measured)] == measured  # what was not measured is last
        assert [float(value) for value in measured] == sorted(map(float, measured), reverse=sign < 0)


def test_search_finds_a_page_and_nothing_is_asked_elsewhere(served, browser):
    page = browser.new_page()
    asked = []
    page.on('request', lambda request: asked.append(request.url))
    page.goto(f'{served}/index.html')
    page.keyboard.press('/')
    page.locator('input[name=query]').press_sequentially('sliced inference')
    page.locator('.md-search-result__item', has_text='Sliced inference').first.wait_for()
    assert asked and all(url.startswith((served, 'data:', 'blob:')) for url in asked)


def test_pictures_are_up_to_date():
    script = ROOT / '.dev_scripts' / 'draw_concepts.py'
    result = subprocess.run([sys.executable, str(script), '--check'], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

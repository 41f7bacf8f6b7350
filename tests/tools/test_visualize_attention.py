"""The attention viewer: its pictures, and its page in a headless browser."""

import json
import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.small_model import checkpoint, small_config  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
TOOL = 'tools/analysis_tools/visualize_attention.py'
NAME = '<img src=x onerror=alert(1)>&{{data}}.png'  # a name that must not become a part of the page


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp('images') / NAME.replace('/', '')
    ok, encoded = cv2.imencode('.png', np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    assert ok
    path.write_bytes(encoded.tobytes())
    return path


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, 'argv', [TOOL, *map(str, arguments)])
    runpy.run_path(str(ROOT / TOOL), run_name='__main__')


@pytest.fixture(scope='module')
def drawn(image, small_config, checkpoint, tmp_path_factory):  # noqa: F811
    """Folder with the pictures and the page of two models: the small one, and itself with random weights."""
    folder = tmp_path_factory.mktemp('drawn')
    with pytest.MonkeyPatch.context() as patch:
        compare = ('--compare', small_config)
        run(patch, image, small_config, checkpoint, '--out-dir', folder, '--query', '42,10', '--top-k', '20', *compare)
    return folder


def test_pictures(drawn):
    names = {path.name for path in drawn.iterdir()}
    levels = {f'encoder1_level{level}.png' for level in range(4)}
    assert names == {'encoder1_query.png', 'query_selection.png', 'attention.html', *levels}
    for path in drawn.glob('*.png'):
        pixels = cv2.imread(str(path))
        assert min(pixels.shape[:2]) > 300 and pixels.std() > 10  # something is drawn


def read_page(folder: Path) -> dict:
    text = (folder / 'attention.html').read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_page_holds_its_data_and_no_name_becomes_a_part_of_it(drawn):
    text = (drawn / 'attention.html').read_text()
    assert '<img' not in text and '&lt;img src=x onerror=alert(1)&gt;&amp;{{data}}' in text
    assert not re.search(r'(?:src|href)\s*=\s*["\']?(?:https?:)?//', text)
    assert len(text) < 3_000_000
    data = read_page(drawn)
    assert (data['width'], data['height'], data['count'], len(data['models'])) == (64, 48, 20, 2)
    labels = [layer['label'] for layer in data['models'][0]['layers']]
    encoder = ['encoder layer 0 (high-level tokens)', 'encoder layer 1 (all tokens)']
    assert labels == [*encoder, 'decoder layer 0 (queries)']


def test_page_in_a_browser(drawn, browser):
    page = browser.new_page(viewport=dict(width=1300, height=900))
    asked, errors = [], []
    page.on('request', lambda request: asked.append(request.url))
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.on('console', lambda message: errors.append(message.text) if message.type == 'error' else None)
    page.on('dialog', lambda dialog: errors.append('a dialog'))
    page.goto(f'file://{drawn}/attention.html')
    page.locator('body[data-ready=yes]').wait_for()
    captions, canvases = page.locator('figcaption'), page.locator('#models canvas')

    def shown() -> list:
        return captions.all_inner_texts()

    def pixels() -> str:
        return canvases.nth(0).evaluate('canvas => canvas.toDataURL()')

    def changes(act) -> bool:
        before = pixels()
        act()
        return pixels() != before

    # The query that was asked for at (42, 10): the token of level 0 around it, 8 pixels a token.
    assert page.locator('h1').inner_text() == f'{NAME.replace("/", "")}: attention' and len(shown()) == 2
    assert all('encoder layer 1' in text and 'level 0 at (44, 12)' in text for text in shown()), shown()
    # A click picks the query there.
    box = canvases.nth(0).bounding_box()
    assert changes(lambda: canvases.nth(0).click(position=dict(x=box['width'] * 0.9, y=box['height'] * 0.9)))
    assert all('at (60, 44)' in text for text in shown()), shown()
    # Another layer, head, level and number of samples.
    page.locator('#layer').select_option(label='encoder layer 0 (high-level tokens)')
    assert all('encoder layer 0' in text and 'a token of level 1' in text for text in shown()), shown()
    page.locator('#layer').select_option(label='decoder layer 0 (queries)')
    assert all(re.search(r'decoder layer 0.*query \d at', text) for text in shown()), shown()
    page.get_by_role('slider').fill('400')
    assert shown()[0].endswith('; 128 samples')  # 8 heads, 4 levels, 4 points
    assert changes(lambda: page.locator('#head').select_option('3')) and shown()[0].endswith('; 16 samples')
    page.get_by_role('checkbox').first.uncheck()
    assert shown()[0].endswith('; 12 samples')
    page.locator('#view').select_option('all')
    assert 'all queries' in shown()[0]
    page.locator('#view').select_option('selection')
    assert 'scores of level 1, 3x4 tokens' in shown()[0] and 'became queries' in shown()[0], shown()
    assert not errors and all(url.startswith(('file:', 'data:')) for url in asked)
    page.close()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--query', '64,10'], 'error: query 64,10 is outside of the image, which is 64x48 pixels'),
        (['--layer', '2'], 'error: layer must be from 0 to 1 in this encoder, got 2'),
        (['--index', '-1'], 'error: index must be from 0 to 64 in encoder layer 1, got -1'),
        (['--box', '9,9,9,20'], 'error: box must be x1,y1,x2,y2 with x1 < x2 and y1 < y2, got 9,9,9,20'),
    ],
    ids=lambda value: '' if isinstance(value, str) else value[0],
)
def test_what_is_not_there(image, small_config, checkpoint, tmp_path, error_of_tool, arguments, message):  # noqa: F811
    assert error_of_tool(TOOL, image, small_config, checkpoint, '--out-dir', tmp_path / 'out', *arguments) == message
    assert not (tmp_path / 'out').exists()


def test_bad_arguments(image, small_config, tmp_path, error_of_tool):  # noqa: F811
    out = ('--out-dir', tmp_path / 'out')
    assert "must be an image file that exists, got 'none.png'" in error_of_tool(TOOL, 'none.png', small_config, *out)
    assert "must be 2 numbers separated by commas, got '1;2'" in error_of_tool(
        TOOL, image, small_config, *out, '--query', '1;2'
    )
    assert 'must be a checkpoint file that exists' in error_of_tool(TOOL, image, small_config, 'none.pth', *out)
    broken = tmp_path / 'broken.png'
    broken.write_text('no image')
    assert 'cannot be read as an image' in error_of_tool(TOOL, broken, small_config, *out)
    assert '--top-k must be at least 1, got 0' in error_of_tool(TOOL, image, small_config, *out, '--top-k', '0')

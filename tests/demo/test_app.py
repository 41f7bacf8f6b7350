"""demo/app.py in a headless browser."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.process


@pytest.fixture
def address(checkpoint, port, tmp_path):
    """A page that is served."""
    pytest.importorskip('gradio', reason='gradio is not installed: pip install gradio')
    command = [sys.executable, str(ROOT / 'demo' / 'app.py'), '--weights', str(checkpoint), '--port', port]
    log = (tmp_path / 'log.txt').open('w')
    process = subprocess.Popen([*command, '--device', 'cpu'], stdout=log, stderr=log, env={**os.environ})
    url = f'http://127.0.0.1:{port}'
    try:
        for _ in range(240):
            assert process.poll() is None, (tmp_path / 'log.txt').read_text()
            try:
                urllib.request.urlopen(url, timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def test_page_detects(browser, address, tmp_path):
    cv2.imwrite(str(tmp_path / 'image.png'), np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))
    elsewhere = []
    page = browser.new_page(viewport=dict(width=1200, height=900))
    page.on('request', lambda request: None if address in request.url else elsewhere.append(request.url))
    page.goto(address, wait_until='domcontentloaded')
    page.set_input_files('input[type=file]', str(tmp_path / 'image.png'))
    page.get_by_role('slider').first.fill('0')
    page.get_by_role('button', name='Detect').click()
    page.get_by_text('triangle').or_(page.get_by_text('disc')).or_(page.get_by_text('rectangle')).first.wait_for()
    page.screenshot(path=os.environ.get('SCREENSHOT', str(tmp_path / 'page.png')), full_page=True)
    rows = page.locator('table tbody tr').count()
    page.close()
    assert rows >= 1 and not elsewhere

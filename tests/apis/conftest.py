"""A web server on this machine, and a small model with weights."""

import http.server
import re
import threading
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from lite_detr_mmdet.zoo import find_config

SHAPES = 'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch.hub."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    return tmp_path / 'torch' / 'hub' / 'checkpoints'


@pytest.fixture
def server():
    """Serve ``files`` (path -> bytes); ``requests`` lists what was asked for, ``limit`` cuts answers short."""
    state = SimpleNamespace(files={}, requests=[], limit=None, ranges=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = state.files.get(self.path)
            wanted = self.headers.get('Range') if state.ranges else None
            state.requests.append((self.path, wanted))
            if content is None:
                return self.send_error(404)
            start = int(re.fullmatch(r'bytes=(\d+)-', wanted)[1]) if wanted else 0
            if wanted and start >= len(content):
                return self.send_error(416)
            self.send_response(206 if wanted else 200)
            self.send_header('Content-Length', str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : state.limit])

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state.url = f'http://127.0.0.1:{httpd.server_port}'
    yield state
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture(scope='session')
def small_config(tmp_path_factory):
    """Config file of a small model."""
    path = tmp_path_factory.mktemp('config') / 'small.py'
    cfg = Config.fromfile(find_config(SHAPES))
    cfg.merge_from_dict(
        {
            'model.num_queries': 10,
            'model.test_cfg.max_per_img': 10,
            'model.backbone.base_channels': 8,
            'model.neck.in_channels': [16, 32, 64],
            'model.decoder.num_layers': 1,
        }
    )
    for dataloader in (cfg.test_dataloader, cfg.val_dataloader):
        dataloader.dataset.pipeline[1].scale = (64, 64)
    cfg.dump(path)
    return path


@pytest.fixture(scope='session')
def checkpoint(small_config):
    """Checkpoint of the small model, as training saves it."""
    cfg = Config.fromfile(small_config)
    model = MODELS.build(cfg.model)
    model.init_weights()
    classes = ('disc', 'rectangle', 'triangle')
    meta = dict(dataset_meta=dict(CLASSES=classes), cfg=Config.fromfile(small_config).pretty_text)
    path = small_config.with_name('checkpoint.pth')
    torch.save(dict(meta=meta, state_dict=model.state_dict(), optimizer=dict(state={})), path)
    return path

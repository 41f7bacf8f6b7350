"""A web server on this machine that behaves as it is told, and an empty cache."""

import http.server
import re
import threading
from types import SimpleNamespace

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch.hub."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    return tmp_path / 'torch' / 'hub' / 'checkpoints'


@pytest.fixture
def server():
    """Serve ``files`` (path -> bytes); ``requests`` lists path and headers of what was asked for.

    ``limit`` cuts answers short, ``ranges`` says whether parts are sent, ``tag`` is the ETag of all files,
    ``with_length`` whether answers say how long they are, ``answer`` replaces the whole behaviour.
    """
    state = SimpleNamespace(
        files={}, requests=[], limit=None, ranges=True, tag=None, with_length=True, answer=None, content_range=None
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.requests.append((self.path, dict(self.headers)))
            if state.answer is not None:
                return state.answer(self)
            content = state.files.get(self.path)
            if content is None:
                return self.send_error(404)
            wanted = self.headers.get('Range') if state.ranges else None
            if self.headers.get('If-Range') not in (None, state.tag):
                wanted = None  # another file by now: all of it
            start = int(re.fullmatch(r'bytes=(\d+)-', wanted)[1]) if wanted else 0
            if wanted and start >= len(content):
                return self.send_error(416)
            self.send_response(206 if wanted else 200)
            if state.with_length:
                self.send_header('Content-Length', str(len(content) - start))
            if wanted:
                span = f'bytes {start}-{len(content) - 1}/{len(content)}'
                self.send_header('Content-Range', state.content_range or span)
            if state.tag:
                self.send_header('ETag', state.tag)
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

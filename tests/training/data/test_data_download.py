from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from prune_nas.errors import MissingError
from prune_nas.training.data import download

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """`/good` serves CONTENT with ranges, `/whole` without, `/breaks` at most half of what is asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.seen.append((self.path, wanted))
        if self.path == "/absent":
            self.send_error(404)
            return
        content = b"wrong" * 100 if self.path == "/wrong" else CONTENT
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.path != "/whole" else 0
        if start >= len(content):
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(body[: (len(body) + 1) // 2] if self.path == "/breaks" and len(body) > 300_000 else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def get(server, tmp_path):
    def call(*paths: str, **options):
        target = tmp_path / "kept" / "file.bin"
        calls: list[tuple[int, int]] = []
        options = {"progress": lambda done, total: calls.append((done, total)), "timeout": 5.0} | options
        download.fetch([server.url(path) for path in paths], target, MD5, **options)
        assert target.read_bytes() == CONTENT
        assert not target.with_name("file.bin.part").exists()
        return calls

    return call


def have(tmp_path, content: bytes) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file.bin.part").write_bytes(content)


def test_a_plain_download_reports_its_progress(get):
    assert get("good")[-1] == (len(CONTENT), len(CONTENT))


def test_what_is_there_is_not_fetched(get, server, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file.bin").write_bytes(CONTENT)
    get("good")
    assert server.seen == []


def test_an_earlier_part_is_continued(get, server, tmp_path):
    have(tmp_path, CONTENT[:1000])
    assert get("good")[-1] == (len(CONTENT), len(CONTENT))
    assert server.seen == [("/good", "bytes=1000-")]


def test_a_complete_part_is_taken(get, server, tmp_path):
    have(tmp_path, CONTENT)
    get("good")
    assert len(server.seen) == 1


def test_a_server_without_ranges_sends_everything_again(get, tmp_path):
    have(tmp_path, CONTENT[:1000])
    get("whole")


def test_a_broken_connection_is_continued(get, server):
    get("breaks")
    assert [wanted for _, wanted in server.seen] == [None, f"bytes={len(CONTENT) // 2}-", "bytes=786432-"]


def test_a_wrong_part_is_fetched_again_from_the_start(get, server, tmp_path):
    have(tmp_path, b"x" * 1000)
    get("good")
    assert server.seen == [("/good", "bytes=1000-"), ("/good", None)]


def test_the_next_mirror_helps_out(get, server):
    get("absent", "wrong", "good")
    assert [path for path, _ in server.seen] == ["/absent", "/wrong", "/good"]


def test_every_mirrors_failure_is_told(get, tmp_path):
    with pytest.raises(MissingError) as caught:
        get("absent", "wrong")
    assert "404" in str(caught.value)
    assert "wrong checksum" in str(caught.value)
    assert not (tmp_path / "kept" / "file.bin").exists()


def test_a_machine_without_a_network(tmp_path):
    with pytest.raises(MissingError, match=r"could not download x: .*no network"):
        download.fetch(["https://example.org/x"], tmp_path / "x", MD5, progress=download.show_progress)


def test_progress_is_for_terminals(capsys, monkeypatch):
    download.show_progress(5_000_000, 10_000_000)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    download.show_progress(5_000_000, 10_000_000)
    assert "5 of 10 MB" in capsys.readouterr().err

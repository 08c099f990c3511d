import asyncio
import json
import logging
from pathlib import Path

import httpx
import pytest

from metier.errors import ConfigError
from metier.privacy.guard import scan_files, text_of
from metier.privacy.uploads import UploadGuard

TEXT = "一行\n姓名：张伟，电话13812345678\nMr. John Smith\n"
SEEDED = ("张伟", "13812345678", "John Smith")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def found(*paths: Path, **more: object) -> list[tuple[str, int, str]]:
    return [(item.path.name, item.line, item.entity) for item in scan_files(paths, **more).findings]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_files_are_searched_line_by_line_in_any_usual_encoding(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, "a.txt", TEXT.encode(encoding))
    assert found(path) == [("a.txt", 2, "PERSON"), ("a.txt", 2, "PHONE_NUMBER"), ("a.txt", 3, "PERSON")]


def test_escapes_of_json_are_read(tmp_path: Path) -> None:
    assert found(write(tmp_path, "a.jsonl", json.dumps({"t": "姓名：张伟，电话13812345678"}))) == [("a.jsonl", 1, "PERSON"), ("a.jsonl", 1, "PHONE_NUMBER")]


def test_very_long_lines_are_searched_to_their_end(tmp_path: Path) -> None:
    assert found(write(tmp_path, "a.txt", "x " * 60_000 + "电话13812345678。")) == [("a.txt", 1, "PHONE_NUMBER")]


def test_binary_files_are_skipped_and_said_to_be(tmp_path: Path) -> None:
    path = write(tmp_path, "a.bin", b"\x00\x01" + b"13812345678")
    scan = scan_files([path])
    assert (scan.findings, scan.skipped) == ([], [path])
    assert text_of(b"\xff\xff\xff") is None


def test_exceptions_by_path_kind_and_value(tmp_path: Path) -> None:
    one, other = write(tmp_path, "data/one.txt", TEXT), write(tmp_path, "docs/other.txt", TEXT)
    allow = write(tmp_path, "allow", "# a comment\ndata/*\nother.txt PERSON\n= 13812345678\n")
    assert found(one, other, allow=allow) == []
    assert found(other, allow=write(tmp_path, "less", "other.txt PERSON\n")) == [("other.txt", 2, "PHONE_NUMBER")]
    with pytest.raises(ConfigError) as caught:
        scan_files([one], allow=write(tmp_path, "wrong", "a b c\nok\nd e\n"))
    assert [fault.line for fault in caught.value.faults] == [1, 3]
    with pytest.raises(ConfigError, match="no such file"):
        scan_files([tmp_path / "nowhere"])


def test_surrogates_of_reserved_ranges_pass(tmp_path: Path) -> None:
    assert found(write(tmp_path, "a.txt", "寄往12812345678，卡9999000000000000000，a@example.com，192.0.2.7，SSN 000-12-3456")) == []


async def echo(scope, receive, send) -> None:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"".join(parts)})


def post(content: bytes, kind: str = "text/plain", *, path: str = "/", method: str = "POST", guard: dict | None = None, **headers: str) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(UploadGuard(echo, **(guard or {})))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, content=content, headers={"content-type": kind, **headers})

    return asyncio.run(run())


FORM = (
    b'--B\r\ncontent-disposition: form-data; name="note"\r\n\r\nhello\r\n--B\r\ncontent-disposition: form-data; name="f"; filename="a.csv"\r\n'
    b"content-type: text/csv\r\n\r\n" + TEXT.encode() + b"\r\n--B--\r\n"
)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (TEXT.encode(), "text/plain"),
        (json.dumps({"a": ["姓名：张伟，电话13812345678"]}).encode(), "application/json"),
        (json.dumps({"电话13812345678": 1}).encode(), "application/json"),
        (b'{"a": 1}\n{"a": "Mr. John Smith"}\n', "application/x-ndjson"),
        (b"note=%E7%94%B5%E8%AF%9D13812345678", "application/x-www-form-urlencoded"),
        (FORM, "multipart/form-data; boundary=B"),
    ],
)
def test_uploads_with_identifiers_are_refused_by_kind_and_never_by_value(content: bytes, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = post(content, kind)
    assert answer.status_code == 422
    assert set(answer.json()["error"]["found"]) <= {"PERSON", "PHONE_NUMBER"}
    assert not any(value in answer.text + caplog.text for value in SEEDED)


@pytest.mark.parametrize(
    ("content", "kind"), [(b"plain words", "text/plain"), ("血压120/80".encode(), "text/csv"), (b'{"a": 1}', "application/json"), (b"", "text/plain")]
)
def test_other_uploads_reach_the_application_whole(content: bytes, kind: str) -> None:
    answer = post(content, kind)
    assert (answer.status_code, answer.content) == (200, content)


@pytest.mark.parametrize(
    ("content", "kind", "more", "status"),
    [
        (b"\x89PNG\x00\x01", "image/png", {}, 415),
        (b"x", "text/plain", {"content-encoding": "gzip"}, 415),
        (b"{no", "application/json", {}, 400),
        (b"no parts", "multipart/form-data", {}, 400),
        (b"x" * 100, "text/plain", {"guard": {"longest": 10}}, 413),
    ],
)
def test_what_cannot_be_looked_into_is_refused(content: bytes, kind: str, more: dict, status: int) -> None:
    assert post(content, kind, **more).status_code == status


def test_a_search_that_breaks_lets_nothing_through(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError(TEXT)

    monkeypatch.setattr("metier.privacy.uploads.kinds_in", broken)
    answer = post(TEXT.encode())
    assert answer.status_code == 500
    assert not any(value in answer.text + caplog.text for value in SEEDED)


def test_other_methods_and_paths_are_not_the_guard_s() -> None:
    assert post(TEXT.encode(), method="DELETE").status_code == 200
    assert post(TEXT.encode(), path="/chat", guard={"paths": ("/upload",)}).status_code == 200
    assert post(TEXT.encode(), path="/upload/x", guard={"paths": ("/upload",)}).status_code == 422

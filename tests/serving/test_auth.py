from __future__ import annotations

import json
import stat
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from metier.errors import InputError, StoreError
from metier.serving import ApiKeys
from metier.serving.auth import required_scope
from serving.conftest import Running, question


def test_a_key_is_shown_once_and_kept_as_a_digest(tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path / "keys")
    secret = keys.new("front-desk", expires="90d")
    assert secret.startswith("mtr_")
    assert len(secret) == 47
    assert secret[4:] not in keys.path.read_text()
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.path.parent.stat().st_mode) == 0o700
    found = keys.find(secret)
    assert found is not None
    assert (found.name, found.scopes) == ("front-desk", ("chat",))
    assert keys.find(secret[:-1] + ("A" if secret[-1] != "A" else "B")) is None
    for wrong in ("", "mtr_", secret[4:], secret + " ", secret.upper(), f"x{secret}", "mtr_" + "é" * 43):
        assert keys.find(wrong) is None
    assert ApiKeys(tmp_path / "keys").find(secret) == found


def test_revoked_and_expired_keys_open_nothing(tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path)
    reader = ApiKeys(tmp_path)
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    first, short = keys.new("first"), keys.new("short", expires=soon)
    assert reader.find(first)
    assert reader.find(short)
    keys.revoke("first")
    assert reader.find(first) is None, "another process sees the change of the file at once"
    time.sleep(0.4)
    assert reader.find(short) is None
    assert [key.name for key in reader.list()] == ["first", "short"]


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("a b", {}, "cannot be the name"),
        ("", {}, "cannot be the name"),
        ("x\nINFO all well", {}, "cannot be the name"),
        ("ok", {"scopes": ["chats"]}, "did you mean 'chat'"),
        ("ok", {"scopes": []}, "without a scope"),
        ("ok", {"expires": "soon"}, "no time"),
        ("ok", {"expires": "2001-01-01"}, "has passed"),
        ("taken", {}, "already"),
    ],
)
def test_what_no_key_can_be_is_said(tmp_path: Path, name: str, more: dict[str, object], message: str) -> None:
    keys = ApiKeys(tmp_path)
    keys.new("taken")
    with pytest.raises(InputError, match=message):
        keys.new(name, **more)  # type: ignore[arg-type]
    assert len(keys.list()) == 1
    with pytest.raises(InputError, match="no key"):
        keys.revoke("other")


def test_keys_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    threads = [threading.Thread(target=lambda number=number: ApiKeys(tmp_path).new(f"key-{number}")) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ApiKeys(tmp_path).list()) == 12


def test_a_damaged_file_of_keys_opens_nothing(server: Running) -> None:
    good = server.keys.path.read_bytes()
    try:
        server.keys.path.write_bytes(good[:-10])
        with pytest.raises(StoreError):
            server.keys.find(server.key)
        reply = httpx.get(f"{server.url}/v1/models", headers={"authorization": f"Bearer {server.key}"})
        assert reply.status_code == 503
        assert httpx.get(f"{server.url}/v1/models").status_code in (401, 503)
        server.keys.path.write_text(json.dumps({"keys": [{"name": "x"}]}))
        assert httpx.get(f"{server.url}/v1/models", headers={"authorization": f"Bearer {server.key}"}).status_code == 503
    finally:
        server.keys.path.write_bytes(good)
    assert httpx.get(f"{server.url}/v1/models", headers={"authorization": f"Bearer {server.key}"}).status_code == 200


def test_scopes_are_kept_apart(server: Running) -> None:
    chat, metrics = {"authorization": f"Bearer {server.key}"}, {"authorization": f"Bearer {server.metrics_key}"}
    assert httpx.get(f"{server.url}/metrics", headers=chat).status_code == 403
    assert httpx.get(f"{server.url}/metrics", headers=metrics).status_code == 200
    assert httpx.get(f"{server.url}/v1/models", headers=metrics).status_code == 403
    assert httpx.post(f"{server.url}/v1/chat/completions", headers=metrics, json=question()).status_code == 403
    assert httpx.get(f"{server.url}/openapi.json", headers=metrics).status_code == 403
    assert httpx.get(f"{server.url}/openapi.json", headers=chat).status_code == 200


def test_only_the_bearer_form_and_only_one_key_is_taken(server: Running) -> None:
    url = f"{server.url}/v1/models"
    assert httpx.get(url, headers={"authorization": f"bearer {server.key}"}).status_code == 200
    for header in (server.key, f"Basic {server.key}", f"Bearer {server.key} {server.key}", "Bearer", f"Bearer\t{server.key}"):
        assert httpx.get(url, headers={"authorization": header}).status_code == 401, header
    both = [("authorization", f"Bearer {server.key}"), ("authorization", "Bearer mtr_wrong")]
    assert httpx.get(url, headers=both).status_code == 401
    assert httpx.get(f"{url}?api_key={server.key}").status_code == 401
    assert httpx.get(url, cookies={"authorization": f"Bearer {server.key}"}).status_code == 401


def test_only_two_paths_and_two_methods_need_no_key() -> None:
    assert required_scope("GET", "/health") is required_scope("HEAD", "/ready") is None
    for method, path in [("POST", "/health"), ("OPTIONS", "/ready"), ("GET", "/health/"), ("GET", "//health"), ("GET", "/Health"), ("GET", "/healthz")]:
        assert required_scope(method, path) == "chat"

import asyncio
import json
import logging

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metier.errors import PrivacyError
from metier.privacy.gateway import Conversation, Restorer, redact
from metier.privacy.gateway.proxy import Gateway, GatewaySettings
from metier.privacy.gateway.stream import EventStream

ZH = "姓名：张伟，电话13812345678，头痛三天怎么办？"
EN = "My name is Jane Doe, call (212) 456-7890."
SEEDED = ("张伟", "13812345678", "Jane Doe", "456-7890")


def clean(text: str) -> bool:
    return not any(value in text for value in SEEDED)


def test_prompts_leave_without_identifiers_and_answers_come_back_with_them() -> None:
    safe, restore = redact(
        [{"role": "system", "content": "你是助手"}, {"role": "user", "content": ZH}, {"role": "user", "content": [{"type": "text", "text": EN}]}]
    )
    assert clean(json.dumps(safe, ensure_ascii=False))
    assert safe[0] == {"role": "system", "content": "你是助手"}
    assert "头痛三天怎么办" in safe[1]["content"]
    assert restore(safe[1]["content"]) == ZH
    assert restore(safe[2]["content"][0]["text"]) == EN


def test_a_value_has_the_same_token_in_every_turn_and_text_that_looks_like_one_is_left_alone() -> None:
    one, _ = redact([{"role": "user", "content": ZH}])
    two, restore = redact([{"role": "user", "content": ZH}, {"role": "assistant", "content": "张伟您好 [PERSON_zzzzzzzz]"}])
    assert one[0] == two[0]
    assert restore(two[1]["content"]) == "张伟您好 [PERSON_zzzzzzzz]"


def test_pictures_and_files_are_refused() -> None:
    with pytest.raises(PrivacyError, match="image_url"):
        redact([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}])


def test_arguments_of_tools_stay_json() -> None:
    talk = Conversation()
    safe = talk.redact_value({"messages": [{"role": "user", "content": ZH}]})
    token = safe["messages"][0]["content"][3:].partition("，")[0]
    talk.originals[token] = '张"伟'
    answer = talk.restore_value({"tool_calls": [{"function": {"name": "f", "arguments": json.dumps({"who": token})}}]})
    assert json.loads(answer["tool_calls"][0]["function"]["arguments"]) == {"who": '张"伟'}


@given(st.lists(st.integers(1, 400), max_size=12), st.text("[]PERSON_abc张伟 \n", max_size=30))
@settings(max_examples=80, deadline=None)
def test_an_answer_is_restored_however_it_is_cut(cuts: list[int], noise: str) -> None:
    token = "[PERSON_abcdefgh]"
    text = f"{noise}{token}您好[{token}]{noise}[PERSON_"
    restorer = Restorer({token: "张伟"})
    pieces, start = [], 0
    for cut in sorted(set(cuts)):
        pieces.append(text[start:cut])
        start = max(start, cut)
    got = "".join(restorer.push(piece) for piece in [*pieces, text[start:]]) + restorer.finish()
    assert got == text.replace(token, "张伟")


def events(text: str, size: int) -> bytes:
    deltas = [{"content": text[start : start + size]} for start in range(0, len(text), size)]
    out = [{"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    out.append({"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: " + json.dumps(item, ensure_ascii=False).encode() + b"\n\n" for item in out) + b"data: [DONE]\n\n"


def content(data: bytes) -> str:
    lines = [line[6:] for line in data.decode().split("\n") if line.startswith("data: ") and line != "data: [DONE]"]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)


@pytest.mark.parametrize("size", [1, 3, 7, 200])
@pytest.mark.parametrize("cut", [1, 5, 64, 10_000])
def test_a_stream_is_restored_however_tokens_and_bytes_are_split(size: int, cut: int) -> None:
    talk = Conversation()
    (safe,) = talk.redacted([ZH])
    stream, data = EventStream(talk), events(f"{safe}[PER", size)
    got = b"".join(stream.push(data[start : start + cut]) for start in range(0, len(data), cut)) + stream.finish()
    assert content(got) == f"{ZH}[PER"
    assert got.decode().rstrip().endswith("data: [DONE]")


class Upstream:
    """A model outside that repeats what it was asked, whole or as a stream, and remembers every byte that reached it."""

    def __init__(self, status: int = 200) -> None:
        self.seen: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.status = status

    async def __call__(self, scope, receive, send) -> None:
        message = await receive()
        self.seen.append(message.get("body", b""))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        asked = json.loads(message["body"])
        said = asked["messages"][-1]["content"]
        if asked.get("stream"):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
            await send({"type": "http.response.body", "body": events(said, 2)})
            return
        body = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": said}}]}).encode()
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})


def ask(
    upstream: Upstream, body: object, *, path: str = "/v1/chat/completions", method: str = "POST", token: str | None = None, **headers: str
) -> httpx.Response:
    gateway = Gateway(GatewaySettings("http://outside/v1", key="upstream-key", token=token), transport=httpx.ASGITransport(upstream))

    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway") as client:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await client.post(path, content=data, headers=headers)

    return asyncio.run(run())


def question(text: str, **more: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize("text", [ZH, EN])
@pytest.mark.parametrize("stream", [False, True])
def test_the_gateway_hides_and_restores(text: str, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream()
    with caplog.at_level(logging.DEBUG):
        answer = ask(upstream, question(text, stream=stream, user="jane.doe@corp.example", metadata={"patient": "张伟"}))
    assert answer.status_code == 200
    got = content(answer.content) if stream else answer.json()["choices"][0]["message"]["content"]
    assert got == text
    assert clean(upstream.seen[0].decode()) and b"corp" not in upstream.seen[0] and "张伟" not in json.dumps(json.loads(upstream.seen[0]), ensure_ascii=False)
    assert upstream.headers[0]["authorization"] == "Bearer upstream-key"
    assert clean(caplog.text) and "upstream-key" not in caplog.text


@pytest.mark.parametrize(
    ("body", "path", "status"),
    [
        (b"{no json", "/v1/chat/completions", 400),
        (b"[1]", "/v1/chat/completions", 400),
        (question("x"), "/v1/files", 404),
        (question("x"), "/v1/chat/completions?user=13812345678", 400),
        ({"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}, "/v1/chat/completions", 422),
        (question("银行卡流水共计623456元"), "/v1/chat/completions", 422),
    ],
)
def test_what_cannot_be_made_safe_is_not_sent(body: object, path: str, status: int) -> None:
    upstream = Upstream()
    answer = ask(upstream, body, path=path)
    assert (answer.status_code, upstream.seen) == (status, [])
    assert "623456" not in answer.text


def test_a_rule_that_breaks_sends_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError(ZH)

    monkeypatch.setattr("metier.privacy.gateway.conversation.second_sweep", broken)
    upstream = Upstream()
    with caplog.at_level(logging.DEBUG):
        answer = ask(upstream, question(ZH))
    assert (answer.status_code, upstream.seen) == (500, [])
    assert clean(answer.text) and clean(caplog.text)


def test_a_token_is_asked_for_and_an_upstream_that_is_away_is_said_to_be() -> None:
    upstream = Upstream()
    assert ask(upstream, question("x"), token="secret").status_code == 401
    assert ask(upstream, question("x"), token="secret", authorization="Bearer secret").status_code == 200
    gateway = Gateway(GatewaySettings("http://127.0.0.1:9/v1", timeout=1.0))

    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway") as client:
            return await client.post("/v1/chat/completions", json=question("x"))

    assert asyncio.run(run()).status_code == 502

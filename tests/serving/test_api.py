from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from metier.digest import canonical_json
from metier.models import Base, GenerationSettings, LocalModel
from metier.packs import GuardRule, Pack
from metier.records import Message
from metier.serving import Served
from serving.conftest import NAMES, SETTINGS, Running, events_of, question, running


def test_the_openai_client_gets_an_answer(server: Running, releases: list[Served], base: Base) -> None:
    client = server.openai()
    for release in releases:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}]
        reply = client.chat.completions.create(model=release.name, messages=messages, temperature=0, max_tokens=12)
        model = LocalModel.open(base, release.adapter, dtype=torch.float32)
        (expected,) = model.generate([[Message("system", "Be brief."), Message("user", "你好")]], GenerationSettings(max_new_tokens=12))
        assert reply.choices[0].message.content == expected.text.rstrip("\ufffd").strip()
        assert reply.choices[0].finish_reason == expected.finish
        assert reply.usage is not None
        assert reply.usage.completion_tokens == expected.tokens
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + expected.tokens
        about = reply.model_extra["metier"]
        assert (about["release"], about["adapter"], about["base"]) == (release.release_digest, release.adapter_digest, base.digest)
        assert server.recorder.events[about["entry"] - len(server.recorder.events)].kind == "prediction"


def test_the_openai_client_streams_the_same_answer(server: Running) -> None:
    client = server.openai()
    asked: dict[str, Any] = {"model": "alpha", "messages": [{"role": "user", "content": "你好"}], "temperature": 0.8, "seed": 7, "max_tokens": 40}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole.choices[0].message.content
    ends = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert [chunk.choices[0].finish_reason for chunk in ends] == [whole.choices[0].finish_reason]
    assert ends[0].model_extra["metier"]["release"] == "release-alpha"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_the_openai_client_lists_models_and_understands_errors(server: Running) -> None:
    client = server.openai()
    assert [model.id for model in client.models.list()] == list(NAMES)
    assert client.models.retrieve("beta").owned_by == "metier"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")
    with pytest.raises(openai.AuthenticationError) as denied:
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="mtr_" + "x" * 43, max_retries=0).models.list()
    assert denied.value.request_id
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="alpha", messages=[{"role": "user", "content": "hi"}], n=2)
    assert bad.value.param == "n"
    with pytest.raises(openai.BadRequestError) as tools:
        client.chat.completions.create(
            model="alpha", messages=[{"role": "user", "content": "hi"}], tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}]
        )
    assert tools.value.param == "tools"


def test_the_async_client_gets_many_answers_at_once(server: Running) -> None:
    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client:

            async def one(name: str) -> str:
                stream = await client.chat.completions.create(
                    model=name, messages=[{"role": "user", "content": "x"}], temperature=0, max_tokens=20, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(one(name) for name in NAMES * 8))

    answers = asyncio.run(main())
    assert [len({answers[place] for place in range(start, 24, 3)}) for start in range(3)] == [1, 1, 1]
    assert len(set(answers)) == 3


def test_an_event_says_what_was_executed_and_is_plain_json(server: Running, releases: list[Served], base: Base) -> None:
    with server.client() as client:
        whole = client.post("/v1/chat/completions", json=question(model="gamma", user="person-7", seed=3))
        streamed = client.post("/v1/chat/completions", json=question(model="beta", stream=True))
    first, opened, closed = server.recorder.events
    canonical_json([first.facts, first.body, opened.facts, closed.facts])
    release = releases[2]
    assert (first.kind, first.actor, first.subject) == ("prediction", "key:tester", "person-7")
    assert first.facts["adapter_digest"] == release.adapter_digest
    assert first.facts["weights"] == release.files["adapter_model.safetensors"]
    assert (first.facts["release_digest"], first.facts["base_digest"], first.facts["name"]) == (release.release_digest, base.digest, "gamma")
    assert first.facts["request"] == whole.headers["x-request-id"]
    assert first.facts["executed"] is True
    assert first.facts["finish"] == whole.json()["choices"][0]["finish_reason"]
    assert first.facts["usage"] == whole.json()["usage"]
    assert first.facts["settings"]["seed"] == 3
    assert first.body == {"messages": [{"role": "user", "content": "hello"}], "answer": whole.json()["choices"][0]["message"]["content"]}
    assert (opened.facts["phase"], closed.facts["phase"]) == ("opened", "answered")
    assert opened.facts["request"] == closed.facts["request"] == streamed.headers["x-request-id"]
    assert closed.facts["opened"] is not None
    assert "answer" not in (opened.body or {})
    chunks = events_of(streamed)
    assert chunks[-1] == "[DONE]"
    assert closed.body is not None
    assert closed.body["answer"] == "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])


def test_no_record_no_answer(server: Running) -> None:
    server.recorder.fail = lambda event: event.facts["phase"] == "answered"
    with server.client() as client:
        before = _metric(server, "metier:record_failures_total")
        whole = client.post("/v1/chat/completions", json=question())
        assert whole.status_code == 503
        assert whole.headers["retry-after"]
        assert whole.json()["error"]["code"] == "not_recorded"
        assert "choices" not in whole.json()
        streamed = events_of(client.post("/v1/chat/completions", json=question(stream=True)))
        assert streamed[-1]["error"]["code"] == "not_recorded"
        assert not [chunk for chunk in streamed[:-1] if chunk["choices"][0]["finish_reason"]]
        with pytest.raises(openai.APIError):
            list(server.openai().chat.completions.create(model="alpha", messages=[{"role": "user", "content": "x"}], stream=True))
        server.recorder.fail = lambda event: event.facts["phase"] == "opened"
        refused = client.post("/v1/chat/completions", json=question(stream=True))
        assert refused.status_code == 503
        assert "choices" not in refused.text
        assert _metric(server, "metier:record_failures_total") >= before + 4
        server.recorder.fail = lambda event: False
        assert client.post("/v1/chat/completions", json=question()).status_code == 200


def _metric(server: Running, name: str) -> float:
    page = httpx.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {server.metrics_key}"})
    assert page.status_code == 200
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))


def test_an_answer_is_on_record_before_its_end_is_sent(server: Running) -> None:
    server.recorder.delay = 0.3
    with server.client() as client, client.stream("POST", "/v1/chat/completions", json=question(stream=True)) as response:
        seen = []
        for line in response.iter_lines():
            if line.startswith("data: ") and '"content":"' in line and '"role"' not in line:
                assert [event for event in server.recorder.events if event.facts["phase"] == "opened"], "text left before the answer was opened"
            if '"finish_reason":"' in line or line == "data: [DONE]":
                assert server.recorder.answered(), "the end left before it was on record"
                seen.append(line)
        assert len(seen) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_generation(base: Base, releases: list[Served], pack: Pack, tmp_path: Path, stream: bool) -> None:
    settings = SETTINGS.model_copy(update={"context": 2048, "max_new_tokens": 1900})
    with running(base, releases, pack, tmp_path, settings) as server:
        body = json.dumps(question(max_tokens=1900, stream=stream, temperature=1.9, seed=1)).encode()
        with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            for _ in range(2000):
                if server.service.engine.load.running:
                    break
                time.sleep(0.01)
            assert server.service.engine.load.running == 1
        (event,) = server.settled(1)
        assert event.facts["finish"] == "cancelled"
        assert event.facts["usage"]["completion_tokens"] < 1900
        assert server.service.engine.load.running == 0


def test_stopping_the_server_finishes_or_records_what_runs(base: Base, releases: list[Served], pack: Pack, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"context": 2048, "max_new_tokens": 1900, "grace": 1.0})
    with running(base, releases, pack, tmp_path, settings) as server:
        client = server.client()
        with client.stream("POST", "/v1/chat/completions", json=question(max_tokens=1900, stream=True, temperature=1.9, seed=1)) as response:
            lines = response.iter_lines()
            next(lines)
            server.stop()
            with pytest.raises(httpx.HTTPError):
                list(lines)
        client.close()
    assert [event.facts["finish"] for event in server.recorder.answered()] == ["cancelled"]


def test_an_answer_that_takes_too_long_is_cut_off(base: Base, releases: list[Served], pack: Pack, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"context": 2048, "max_new_tokens": 1900, "timeout": 0.5})
    with running(base, releases, pack, tmp_path, settings) as server, server.client() as client:
        late = client.post("/v1/chat/completions", json=question(max_tokens=1900, temperature=1.9, seed=1))
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        streamed = events_of(client.post("/v1/chat/completions", json=question(max_tokens=1900, temperature=1.9, seed=1, stream=True)))
        assert streamed[-1]["error"]["code"] == "timeout"
        assert {event.facts["finish"] for event in server.settled(2)} == {"timeout"}


@pytest.fixture(scope="module")
def ruled(base: Base, releases: list[Served], pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose pack finds something in every answer of the tiny model."""
    first = _first_answer(base, releases[0])
    examples = {"match": ("x",), "reject": ("y",)}
    rules = (
        GuardRule(
            name="always",
            applies="output",
            pattern=r"\S",
            action="disclaim",
            text={"en": "Ask somebody who knows.", "zh": "请咨询专业人员。"},
            examples=examples,
        ),
        GuardRule(
            name="forbidden",
            applies="output",
            pattern=re.escape(first[6:16]),
            action="refuse",
            text={"en": "I cannot say that.", "zh": "不能说。"},
            examples=examples,
        ),
        *(rule for rule in pack.guard if rule.applies == "input"),
    )
    with running(base, releases, replace(pack, guard=rules), tmp_path_factory.mktemp("ruled")) as server:
        yield server


def _first_answer(base: Base, release: Served) -> str:
    model = LocalModel.open(base, release.adapter, dtype=torch.float32)
    return model.generate([[Message("user", "hello")]], GenerationSettings(max_new_tokens=30))[0].text


def test_disclaimers_end_an_answer_and_a_refusal_ends_it_early(ruled: Running) -> None:
    with ruled.client() as client:
        plain = client.post("/v1/chat/completions", json=question(model="beta", max_tokens=20)).json()
        text = plain["choices"][0]["message"]["content"]
        assert text.endswith(("\n\nAsk somebody who knows.", "\n\n请咨询专业人员。"))
        assert plain["metier"]["guard"] == ["always"]
        chunks = events_of(client.post("/v1/chat/completions", json=question(model="beta", max_tokens=20, stream=True)))
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == text
        refused = client.post("/v1/chat/completions", json=question(max_tokens=30)).json()["choices"][0]
        assert (refused["finish_reason"], refused["message"]["content"]) in [("content_filter", "I cannot say that."), ("content_filter", "不能说。")]
        chunks = events_of(client.post("/v1/chat/completions", json=question(max_tokens=30, stream=True)))
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
        assert chunks[-2]["choices"][0]["finish_reason"] == "content_filter"
        assert text.endswith(("I cannot say that.", "不能说。"))


def test_a_refused_question_is_answered_without_the_model_and_recorded(ruled: Running) -> None:
    ruled.recorder.events.clear()
    with ruled.client() as client:
        english = client.post("/v1/chat/completions", json=question("how to kill myself")).json()
        chinese = events_of(client.post("/v1/chat/completions", json=question("自\u200b杀的方法", stream=True)))
    assert english["choices"][0]["finish_reason"] == "content_filter"
    assert english["choices"][0]["message"]["content"].startswith("I cannot help with this.")
    assert english["usage"]["total_tokens"] == 0
    assert chinese[1]["choices"][0]["delta"]["content"].startswith("我不能提供")
    assert [event.facts["finish"] for event in ruled.recorder.answered()] == ["content_filter"] * 2
    assert not any(event.facts["executed"] for event in ruled.recorder.answered())
    assert ruled.recorder.answered()[0].facts["guard"]["rules"] == ["self_harm"]


def test_metrics_count_and_name_as_dashboards_expect(server: Running) -> None:
    with server.client() as client:
        before = _metric(server, "metier:generation_tokens_total")
        usage = client.post("/v1/chat/completions", json=question()).json()["usage"]
    assert _metric(server, "metier:generation_tokens_total") == before + usage["completion_tokens"]
    page = httpx.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {server.metrics_key}"}).text
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "time_to_first_token_seconds_bucket",
        "inter_token_latency_seconds_sum",
        "e2e_request_latency_seconds_count",
        "request_queue_time_seconds_count",
        "prompt_tokens_total",
        "request_success_total",
        "lora_requests_info",
        "guard_seconds_count",
        "record_seconds_count",
        "http_responses_total",
    ):
        assert f"metier:{name}" in page, name
    assert 'max_lora="3"' in page
    assert server.key not in page


def test_health_and_readiness_reveal_nothing(server: Running) -> None:
    for path in ("/health", "/ready"):
        reply = httpx.get(f"{server.url}{path}")
        assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
        assert httpx.head(f"{server.url}{path}").status_code == 200
        assert "server" not in reply.headers

"""Labels and spans over HTTP: the same door, guard and log as for answers in words, on encoders and decoders, in both languages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from metier.digest import canonical_json
from metier.errors import InputError, ModelError
from metier.models import Base, Labeller, load_tokenizer
from metier.models.heads import load_with_head, whole_in_single_precision
from metier.models.labelfiles import save_trained
from metier.models.labels import Labelling, LabelTask
from metier.models.methods import Shape, attach_method
from metier.packs import GuardRule, Pack
from metier.records import Message
from metier.serving import Served, ServingSettings, open_workers
from metier.serving.guard import Guard, place_before
from serving.conftest import SETTINGS, Running, question, running, served

TASKS: dict[str, LabelTask] = {"topic": "classification", "kinds": "multi-label", "length": "regression", "fit": "pair", "marks": "tagging"}
TEXTS = ["The red pen is on the left.", "红笔在左边。", "a green lamp", "桌子上有三盏绿灯。"]


def labeller(base: Base, folder: Path, task: LabelTask, *, method: str = "lora") -> Path:
    """Write a model with a head whose answers differ from text to text; what it says means nothing."""
    names = () if task in ("regression", "pair") else ("Color", "Thing") if task == "tagging" else ("a", "b", "c")
    labelling = Labelling(task, names, 96, centre=3.0, spread=2.0)
    model: Any = load_with_head(base, labelling, torch.float32, seed=1, frozen=True)
    tuned = attach_method(model, method, Shape(rank=2, alpha=4, tokens=4), seed=0)
    whole_in_single_precision(model)
    with torch.no_grad():
        for name in model.trained_whole:
            for parameter in model.get_submodule(name).parameters():
                parameter.mul_(20)
    save_trained(model, folder, labelling, base=base, tuned=tuned, tokenizer=load_tokenizer(base))
    return folder


@pytest.fixture(scope="module")
def folders(encoder: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("labellers")
    return {name: labeller(encoder, root / name, task, method="prompt" if name == "topic" else "lora") for name, task in TASKS.items()}


@pytest.fixture(scope="module")
def shared(encoder: Base, folders: dict[str, Path], pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    releases = [served(encoder, name, folder) for name, folder in folders.items()]
    with running(encoder, releases, pack, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def desk(shared: Running) -> Running:
    """The shared server of labellers with an empty list of events."""
    shared.recorder.events.clear()
    shared.recorder.fail = lambda event: False
    return shared


def post(server: Running, route: str, **body: Any) -> httpx.Response:
    with server.client() as client:
        return client.post(f"/v1/{route}", json=body)


def test_labels_have_the_form_of_vllm(desk: Running, encoder: Base, folders: dict[str, Path]) -> None:
    found = post(desk, "classify", model="topic", input=TEXTS).json()
    expected = Labeller.open(encoder, folders["topic"], dtype=torch.float32).predict(TEXTS)
    assert found["id"].startswith("classify-")
    assert (found["object"], found["model"]) == ("list", "topic")
    for index, (item, own) in enumerate(zip(found["data"], expected, strict=True)):
        assert set(item) == {"index", "label", "probs", "num_classes"}
        assert (item["index"], item["label"], item["num_classes"]) == (index, own.labels[0], 3)
        assert item["probs"] == pytest.approx(own.probabilities, abs=1e-4)
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] > len(TEXTS)
    assert (found["metier"]["labels"], found["metier"]["task"]) == (["a", "b", "c"], "classification")
    one = post(desk, "classify", model="topic", input=TEXTS[1]).json()
    assert one["data"][0]["probs"] == pytest.approx(found["data"][1]["probs"], abs=1e-4)


def test_several_labels_numbers_and_pairs_are_answered(desk: Running, encoder: Base, folders: dict[str, Path]) -> None:
    pairs = [["red pen", "红笔"], ["绿灯", "green lamp"]]
    several = post(desk, "classify", model="kinds", input=TEXTS).json()["data"]
    own = Labeller.open(encoder, folders["kinds"], dtype=torch.float32).predict(TEXTS)
    assert [item["labels"] for item in several] == [list(item.labels) for item in own]
    assert len({tuple(item["labels"]) for item in several}) > 1
    numbers = post(desk, "classify", model="length", input=TEXTS).json()["data"]
    own = Labeller.open(encoder, folders["length"], dtype=torch.float32).predict(TEXTS)
    assert [item["value"] for item in numbers] == pytest.approx([item.value for item in own], abs=1e-3)
    assert numbers[0] | {"value": 0} == {"index": 0, "label": None, "probs": [], "num_classes": 1, "value": 0}
    fits = post(desk, "classify", model="fit", input=pairs).json()["data"]
    own = Labeller.open(encoder, folders["fit"], dtype=torch.float32).predict(*zip(*pairs, strict=True))
    assert [item["value"] for item in fits] == pytest.approx([item.value for item in own], abs=1e-4)


def test_spans_stand_where_they_stand_in_the_text(desk: Running, encoder: Base, folders: dict[str, Path]) -> None:
    found = post(desk, "spans", model="marks", input=TEXTS).json()
    expected = Labeller.open(encoder, folders["marks"], dtype=torch.float32).predict(TEXTS)
    assert sum(len(item["spans"]) for item in found["data"]) > 3
    for text, item, own in zip(TEXTS, found["data"], expected, strict=True):
        assert [(span["type"], span["start"], span["end"]) for span in item["spans"]] == [(span.type, span.start, span.end) for span in own.spans]
        assert all(text[span["start"] : span["end"]] == span["text"] and 0 < span["score"] <= 1 for span in item["spans"])


def test_an_identifier_is_not_shown_to_the_model_and_places_are_those_of_the_text(desk: Running, pack: Pack) -> None:
    number = "13812345678"
    texts = [f"我的手机号是{number}，红笔在左边。", f"Mail me at someone@example.com about the red pen, or call {number}."]
    found = post(desk, "spans", model="marks", input=texts, user="person-7")
    guard = Guard(pack)
    for text, item in zip(texts, found.json()["data"], strict=True):
        seen = guard.inspect([Message("user", text)])
        (shown,), (moved,) = seen.messages, seen.moved
        for span in item["spans"]:
            inside = text[span["start"] : span["end"]]
            hidden = [part for part in moved if part.was[0] < span["end"] and span["start"] < part.was[1]]
            assert inside == span["text"] or hidden
        assert number not in shown.content
    assert number not in found.text
    (event,) = desk.recorder.events
    assert number not in json.dumps(event.body, ensure_ascii=False)
    assert event.subject == "person-7"
    assert event.facts["guard"]["redacted"]["PHONE_NUMBER"] == 2


def test_places_are_found_again_behind_inside_and_before_what_was_replaced(pack: Pack) -> None:
    text = "abc 13812345678 def 13912345678 ghi"
    seen = Guard(pack).inspect([Message("user", text)])
    (shown,), (moved,) = seen.messages, seen.moved
    for word in ("abc", "def", "ghi"):
        start = shown.content.index(word)
        first, last = place_before(start, moved), place_before(start + 3, moved, end=True)
        assert text[first:last] == word
    inside = shown.content.index("[") + 2
    assert text[place_before(inside, moved) : place_before(inside + 1, moved, end=True)] == "13812345678"
    whole = shown.content.index("["), shown.content.index("]") + 1
    assert text[place_before(whole[0], moved) : place_before(whole[1], moved, end=True)] == "13812345678"


def test_an_event_says_what_was_executed_and_is_kept_before_the_answer(desk: Running, folders: dict[str, Path], encoder: Base) -> None:
    response = post(desk, "classify", model="topic", input=["红笔", "a pen"], user="person-3")
    (event,) = desk.recorder.events
    canonical_json([event.facts, event.body])
    assert (event.kind, event.actor, event.subject) == ("prediction", "key:tester", "person-3")
    assert event.facts["request"] == response.headers["x-request-id"]
    assert event.facts["id"] == response.json()["id"]
    assert (event.facts["name"], event.facts["release_digest"], event.facts["base_digest"]) == ("topic", "release-topic", encoder.digest)
    assert event.facts["weights"] == served(encoder, "topic", folders["topic"]).files["adapter_model.safetensors"]
    assert (event.facts["finish"], event.facts["executed"], event.facts["phase"]) == ("stop", True, "answered")
    assert event.facts["usage"] == response.json()["usage"]
    assert event.body == {"input": [["红笔"], ["a pen"]], "answer": response.json()["data"]}
    desk.recorder.fail = lambda event: True
    refused = post(desk, "classify", model="topic", input="a pen")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_recorded")
    assert "label" not in refused.text


def test_a_rule_refuses_its_text_alone(encoder: Base, folders: dict[str, Path], pack: Pack, tmp_path: Path) -> None:
    rule = GuardRule(
        name="no-lamps",
        applies="input",
        action="refuse",
        pattern="lamp|灯",
        text={"en": "Not about lamps.", "zh": "不谈灯。"},
        examples={"match": ("lamp",), "reject": ("pen",)},
    )
    with running(encoder, [served(encoder, "marks", folders["marks"])], replace(pack, guard=(rule,)), tmp_path) as server:
        found = post(server, "spans", model="marks", input=TEXTS).json()
        assert [item.get("refusal") for item in found["data"]] == [None, None, "Not about lamps.", "不谈灯。"]
        assert found["data"][2]["spans"] == found["data"][3]["spans"] == []
        assert found["metier"]["guard"] == ["no-lamps"]
        alone = post(server, "spans", model="marks", input="a lamp").json()
        assert alone["usage"]["total_tokens"] == 0
        first, second = server.recorder.events
        assert "lamp" not in json.dumps(first.body["input"])
        assert (first.facts["executed"], second.facts["executed"]) == (True, False)


@pytest.mark.parametrize(
    ("route", "body", "status", "code", "said"),
    [
        ("classify", {"model": "topic"}, 400, "invalid_value", "input"),
        ("classify", {"model": "topic", "input": []}, 400, "invalid_value", "input"),
        ("classify", {"model": "topic", "input": " \n"}, 400, "invalid_value", "not empty"),
        ("classify", {"model": "topic", "input": ["a", ""]}, 400, "invalid_value", "input.1"),
        ("classify", {"model": "topic", "input": ["a", 3]}, 400, "invalid_value", "input.1"),
        ("classify", {"model": "topic", "input": [["a", "b", "c"]]}, 400, "invalid_value", "[first, second]"),
        ("classify", {"model": "topic", "input": "a", "truncate": 3}, 400, "unknown_parameter", "truncate"),
        ("classify", {"model": "topic", "input": ["a"] * 65}, 400, "too_many_inputs", "65 texts are more than the 64"),
        ("classify", {"model": "topic", "input": ["a", "红 " * 120]}, 400, "context_length_exceeded", "input.1 has"),
        ("classify", {"model": "fit", "input": ["a", "b"]}, 400, "invalid_value", "give a list of [first, second]"),
        ("spans", {"model": "marks", "input": [["a", "b"]]}, 400, "invalid_value", "input.0 is a pair of texts"),
        ("classify", {"model": "marks", "input": "a"}, 400, "wrong_endpoint", "POST /v1/spans"),
        ("spans", {"model": "topic", "input": "a"}, 400, "wrong_endpoint", "POST /v1/classify"),
        ("chat/completions", {"model": "topic", "messages": [{"role": "user", "content": "a"}]}, 400, "wrong_endpoint", "POST /v1/classify"),
        ("spans", {"model": "mark", "input": "a"}, 404, "model_not_found", "GET /v1/models"),
    ],
)
def test_what_cannot_be_answered_is_said(desk: Running, route: str, body: dict[str, Any], status: int, code: str, said: str) -> None:
    response = post(desk, route, **body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert said in error["message"] or said == error["param"]
    assert set(error) == {"message", "type", "param", "code"}
    assert desk.recorder.events == []


def test_nobody_gets_in_without_a_key(desk: Running) -> None:
    for route in ("classify", "spans"):
        assert httpx.post(f"{desk.url}/v1/{route}", json={"model": "topic", "input": "a"}).status_code == 401
        denied = httpx.post(f"{desk.url}/v1/{route}", json={"model": "topic", "input": "a"}, headers={"authorization": f"Bearer {desk.metrics_key}"})
        assert denied.status_code == 403


def test_models_say_their_route_and_counters_count(desk: Running) -> None:
    with desk.client() as client:
        cards = {item["id"]: item for item in client.get("/v1/models").json()["data"]}
        assert {name: card["metier"]["route"] for name, card in cards.items()} == {name: "/v1/spans" if name == "marks" else "/v1/classify" for name in TASKS}
        assert client.get("/v1/models/marks").json() == cards["marks"]
        assert cards["marks"]["max_model_len"] == 96
        assert client.get("/ready").status_code == 200
    post(desk, "spans", model="marks", input="a red pen")
    page = httpx.get(f"{desk.url}/metrics", headers={"authorization": f"Bearer {desk.metrics_key}"}).text
    assert 'metier:prompt_tokens_total{model_name="marks"}' in page
    assert "metier:num_requests_running 0.0" in page


def test_requests_that_wait_together_are_read_together(desk: Running) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: post(desk, "spans", model="marks", input=TEXTS[number % 4]).json(), range(32)))
    alone = [post(desk, "spans", model="marks", input=text).json()["data"][0]["spans"] for text in TEXTS]
    for number, item in enumerate(found):
        spans = item["data"][0]["spans"]
        assert [(span["type"], span["start"], span["end"]) for span in spans] == [(span["type"], span["start"], span["end"]) for span in alone[number % 4]]
    assert len(desk.recorder.events) == 36


def test_writers_and_labellers_are_served_beside_each_other(base: Base, releases: list[Served], pack: Pack, tmp_path: Path) -> None:
    """A decoder's releases may write or label; a file that is not the release's is refused."""
    marks = served(base, "marks", labeller(base, tmp_path / "marks", "tagging", method="prefix"))
    with running(base, [releases[0], marks], pack, tmp_path) as server:
        assert post(server, "spans", model="marks", input="红笔 red pen").status_code == 200
        with server.client() as client:
            assert client.post("/v1/chat/completions", json=question()).status_code == 200
            wrong = client.post("/v1/spans", json={"model": "alpha", "input": "a"})
        assert (wrong.status_code, "POST /v1/chat/completions" in wrong.json()["error"]["message"]) == (400, True)
    with pytest.raises(ModelError, match="belongs to another base model"):
        open_workers(base, [replace(marks, base_digest="0" * 64)], ServingSettings())
    with pytest.raises(ModelError, match=r"labels\.json is not the file of the release marks"):
        open_workers(base, [replace(marks, files={**marks.files, "labels.json": "0" * 64})], ServingSettings())
    with pytest.raises(InputError, match="two releases are called marks"):
        open_workers(base, [marks, marks], ServingSettings())


def test_what_takes_too_long_is_recorded_as_that(encoder: Base, folders: dict[str, Path], pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(encoder, [served(encoder, "marks", folders["marks"])], pack, tmp_path, SETTINGS.model_copy(update={"timeout": 0.2})) as server:
        (worker,) = server.service.workers
        monkeypatch.setattr(type(worker), "_work", lambda self, began: None)
        late = post(server, "spans", model="marks", input="a pen")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        (event,) = server.recorder.events
        assert (event.facts["finish"], event.facts["executed"], event.body["answer"]) == ("timeout", False, [])

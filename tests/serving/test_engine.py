from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metier.errors import InputError, ModelError
from metier.models import Base, GenerationSettings, LocalModel
from metier.models.attention import Packed
from metier.models.chat import Chat
from metier.models.load import load_weights
from metier.models.lorafile import read_adapter
from metier.models.methods import METHODS, Shape, attach_method
from metier.models.saved import write_saved
from metier.models.stack import stack
from metier.models.tokenizer import load_tokenizer
from metier.records import Message
from metier.serving import Engine, Served
from metier.serving.engine import Busy, EngineFailed
from metier.serving.text import Writer
from metier.serving.ticket import Finished
from serving.conftest import NAMES, SETTINGS, make_adapter, served

QUESTIONS = ["你好", "where does this go? " * 6, "一二三四五六七八九十", "x", "tell me about it, please", "为什么" * 12]


def ask(text: str) -> list[Message]:
    return [Message("user", text)]


def greedy(count: int = 12, **more: Any) -> GenerationSettings:
    return GenerationSettings(max_new_tokens=count, **more)


@asynccontextmanager
async def started(base: Base, releases: Sequence[Served], dtype: torch.dtype = torch.float32, **more: Any) -> AsyncIterator[Engine]:
    engine = Engine.open(base, releases, SETTINGS.model_copy(update=more), dtype=dtype)
    engine.start()
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.stop)


async def answer(engine: Engine, name: str, text: str, wanted: GenerationSettings) -> tuple[str, Finished]:
    ticket = engine.submit(name, engine.encode(ask(text)), wanted)
    pieces = [piece async for piece in ticket]
    assert ticket.finished is not None
    return "".join(pieces), ticket.finished


def alone(base: Base, release: Served, texts: Sequence[str], wanted: GenerationSettings) -> list[str]:
    model = LocalModel.open(base, release.adapter, dtype=torch.float32)
    return [model.generate([ask(text)], wanted)[0].text.rstrip("\ufffd").strip() for text in texts]


def test_hidden_states_of_a_mixed_batch_are_those_of_each_adapter_alone(base: Base, releases: list[Served]) -> None:
    model = load_weights(base, torch.float32)
    gate = stack(model, [read_adapter(model, release.adapter) for release in releases])
    mixed = LocalModel(model, Chat(load_tokenizer(base)))
    prompts = [mixed.chat.prompt(ask(text)) for text in QUESTIONS[:3]]
    gate.choose([place for place, prompt in enumerate(prompts) for _ in prompt])
    with torch.inference_mode():
        states = mixed.hidden([token for p in prompts for token in p], [n for p in prompts for n in range(len(p))], Packed([len(p) for p in prompts]))
    start = 0
    for release, prompt in zip(releases, prompts, strict=True):
        single = LocalModel.open(base, release.adapter, dtype=torch.float32)
        with torch.no_grad():
            expected = single.hidden(prompt, range(len(prompt)), Packed([len(prompt)]))
        plain = LocalModel.open(base, dtype=torch.float32).hidden(prompt, range(len(prompt)), Packed([len(prompt)]))
        assert (states[start : start + len(prompt)] - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())
        assert (expected - plain).abs().max() > 0.1, "the adapter would not be told from the base"
        start += len(prompt)


def test_weights_of_a_mixture_add_up_the_adapters_updates(base: Base, releases: list[Served]) -> None:
    model = load_weights(base, torch.float32)
    adapters = [read_adapter(model, release.adapter) for release in releases]
    name = "model.layers.0.self_attn.q_proj"
    weight = model.get_submodule(name).weight.clone()
    gate = stack(model, adapters)
    x, weights = torch.randn(5, weight.shape[1]), torch.rand(5, 3)
    gate.weigh(weights)
    expected = x @ weight.T
    for place, adapter in enumerate(adapters):
        a, b = (adapter.tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        expected = expected + weights[:, place : place + 1] * (x @ a.T @ b.T) * (adapter.alpha / adapter.rank)
    assert torch.allclose(model.get_submodule(name)(x), expected, atol=1e-5)


def test_without_a_gate_nothing_is_answered(base: Base, releases: list[Served]) -> None:
    model = load_weights(base, torch.float32)
    stack(model, [read_adapter(model, releases[0].adapter)])
    with pytest.raises(ModelError, match="no adapter was chosen"):
        LocalModel(model, Chat(load_tokenizer(base))).hidden([1, 2], [0, 1], Packed([2]))


def test_answers_of_a_mixed_batch_are_those_of_each_adapter_alone(base: Base, releases: list[Served]) -> None:
    async def main() -> list[tuple[str, Finished]]:
        async with started(base, releases) as engine:
            return await asyncio.gather(*(answer(engine, release.name, text, greedy()) for release in releases for text in QUESTIONS))

    answers = asyncio.run(main())
    for place, release in enumerate(releases):
        found = answers[place * len(QUESTIONS) : (place + 1) * len(QUESTIONS)]
        assert [text for text, _ in found] == alone(base, release, QUESTIONS, greedy())
        assert {(end.executed.name, end.executed.adapter, end.executed.release) for _, end in found} == {
            (release.name, release.adapter_digest, release.release_digest)
        }
        assert {end.executed.weights for _, end in found} == {release.files["adapter_model.safetensors"]}


_ALONE: dict[Any, str] = {}


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, id="fp32"), pytest.param(torch.bfloat16, id="bf16")])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_answer_does_not_depend_on_who_comes_and_goes_beside_it(base: Base, releases: list[Served], dtype: torch.dtype, seed: int) -> None:
    rng = random.Random(seed)
    plans = [
        (rng.choice(NAMES), rng.choice(QUESTIONS), rng.choice([0.0, 0.0, 1.2]), rng.randrange(3), rng.randint(1, 24), rng.random() * 0.05, rng.random() < 0.3)
        for _ in range(14)
    ]

    async def one(engine: Engine, plan: Any, *, quiet: bool) -> tuple[str, Finished]:
        name, text, temperature, number, count, wait, cancelled = plan
        wanted = GenerationSettings(max_new_tokens=count, temperature=temperature, top_p=0.9, seed=number)
        await asyncio.sleep(0 if quiet else wait)
        ticket = engine.submit(name, engine.encode(ask(text)), wanted)
        pieces = []
        async for piece in ticket:
            pieces.append(piece)
            if cancelled and not quiet:
                ticket.cancel()
        assert ticket.finished is not None
        assert ticket.finished.executed.name == name
        return "".join(pieces), ticket.finished

    async def main() -> None:
        async with started(base, releases, dtype) as engine:
            crowd = await asyncio.gather(*(one(engine, plan, quiet=False) for plan in plans))
            for plan, (text, end) in zip(plans, crowd, strict=True):
                key = (dtype, *plan[:5])
                if key not in _ALONE:
                    _ALONE[key] = (await one(engine, plan, quiet=True))[0]
                if end.reason == "cancelled":
                    assert _ALONE[key].startswith(text)
                else:
                    assert text == _ALONE[key]
            assert engine.load.running == engine.load.waiting == 0

    asyncio.run(main())


def test_an_unknown_name_is_refused_and_never_given_to_the_base(base: Base, releases: list[Served]) -> None:
    async def main() -> None:
        async with started(base, releases) as engine:
            for name in ("", "base", "tiny", "Alpha", "alpha ", "../alpha", str(base.folder)):
                assert engine.find(name) is None
                with pytest.raises(KeyError):
                    engine.submit(name, [1, 2], greedy())

    asyncio.run(main())


def test_cancelling_stops_at_the_next_step_and_gives_the_row_back(base: Base, releases: list[Served]) -> None:
    async def main() -> None:
        async with started(base, releases, rows=1) as engine:
            first = engine.submit("alpha", engine.encode(ask("x")), greedy(200))
            second = engine.submit("beta", engine.encode(ask("x")), greedy(3))
            async for _ in first:
                first.cancel()
                break
            async for _ in first:
                pass
            assert first.finished is not None
            assert first.finished.reason == "cancelled"
            assert first.finished.completion_tokens < 100
            async for _ in second:
                pass
            assert second.finished is not None
            assert second.finished.reason in ("length", "stop")

    asyncio.run(main())


def test_the_queue_is_bounded_and_says_when_to_come_back(base: Base, releases: list[Served]) -> None:
    async def main() -> None:
        async with started(base, releases, rows=1, max_queue=2) as engine:
            tokens = engine.encode(ask("x"))
            tickets = []
            with pytest.raises(Busy) as busy:
                for _ in range(9):
                    tickets.append(engine.submit("alpha", tokens, greedy(150)))
            assert len(tickets) <= 4
            assert 1 <= busy.value.seconds <= 60
            for ticket in tickets:
                ticket.cancel()
                async for _ in ticket:
                    pass

    asyncio.run(main())


def test_memory_is_bounded_by_rows_and_context(base: Base, releases: list[Served]) -> None:
    async def main() -> None:
        async with started(base, releases, rows=2, context=64) as engine:
            with pytest.raises(ValueError, match="do not fit"):
                engine.submit("alpha", list(range(3, 63)), greedy(5))
            await asyncio.gather(*(answer(engine, "alpha", "x", greedy(20)) for _ in range(6)))
            keys, _ = engine._lanes[0]._cache.layers[0]
            assert keys.shape[0] == 2
            assert keys.shape[2] == 64
            assert not keys.any(), "what a row held is erased when it is given back"

    asyncio.run(main())


def test_a_failing_step_fails_its_requests_and_not_the_server(base: Base, releases: list[Served], monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with started(base, releases) as engine:
            expected = (await answer(engine, "alpha", "x", greedy()))[0]
            hidden = engine._lanes[0]._model.hidden
            calls = 0

            def broken(*arguments: Any) -> torch.Tensor:
                nonlocal calls
                calls += 1
                if calls == 4:
                    raise RuntimeError("out of memory")
                return hidden(*arguments) * (float("nan") if calls == 6 else 1.0)

            monkeypatch.setattr(engine._lanes[0]._model, "hidden", broken)
            results = await asyncio.gather(*(answer(engine, "alpha", "x", greedy()) for _ in range(5)), return_exceptions=True)
            assert any(isinstance(result, EngineFailed) for result in results)
            assert "out of memory" not in str([result for result in results if isinstance(result, EngineFailed)])
            monkeypatch.undo()
            assert (await answer(engine, "alpha", "x", greedy()))[0] == expected
            assert engine.alive

    asyncio.run(main())


def test_stopping_the_engine_ends_what_runs_and_waits(base: Base, releases: list[Served]) -> None:
    async def main() -> None:
        async with started(base, releases, rows=1) as engine:
            tickets = [engine.submit("alpha", engine.encode(ask("x")), greedy(200)) for _ in range(3)]
            await asyncio.to_thread(engine.stop)
            for ticket in tickets:
                async for _ in ticket:
                    pass
                assert ticket.finished is not None
                assert ticket.finished.reason == "cancelled"
            with pytest.raises(EngineFailed):
                engine.submit("alpha", [5], greedy())

    asyncio.run(main())


def test_what_was_not_released_so_is_not_loaded(base: Base, releases: list[Served], tmp_path: Path) -> None:
    release = releases[0]
    with pytest.raises(ModelError, match="another base model"):
        Engine.open(base, [replace(release, base_digest="0" * 64)], SETTINGS)
    with pytest.raises(ModelError, match="is not the file of the release"):
        Engine.open(base, [replace(release, files={**release.files, "adapter_model.safetensors": "0" * 64})], SETTINGS)
    with pytest.raises(ModelError, match="is not the file of the release"):
        Engine.open(base, [replace(release, files={})], SETTINGS)
    folder = make_adapter(base, tmp_path / "templated", 5)
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    with pytest.raises(ModelError, match="chat template"):
        Engine.open(base, [served(base, "templated", folder)], SETTINGS)
    for names in (["alpha", "alpha"], ["../alpha"], ["a b"], ["a\nb"], [""], ["\u0430lpha"]):
        with pytest.raises(InputError):
            Engine.open(base, [replace(release, name=name) for name in names], SETTINGS)
    with pytest.raises(InputError, match="no release"):
        Engine.open(base, [], SETTINGS)


def _pieces(writer: Writer, tokens: Sequence[int]) -> list[str]:
    pieces = [writer.push(token) for token in tokens]
    return [*pieces, writer.finish()]


@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_comes_whole_in_characters_and_adds_up(base: Base, text: str) -> None:
    tokenizer = load_tokenizer(base)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = _pieces(Writer(tokenizer), tokens)
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == tokenizer.decode(tokens, skip_special_tokens=True).strip()


@given(tokens=st.lists(st.integers(3, 300), max_size=30))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tokens_at_all_give_the_text_of_all_of_them(base: Base, tokens: list[int]) -> None:
    tokenizer = load_tokenizer(base)
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    assert "".join(_pieces(Writer(tokenizer), tokens)) == text.rstrip("\ufffd").strip()


def test_han_characters_split_in_bytes_come_whole(base: Base) -> None:
    tokenizer = load_tokenizer(base)
    single = {tokenizer.decode([token]): token for token in range(3, 260)}
    assert "\ufffd" in single
    tokens = tokenizer("龘靐齉", add_special_tokens=False)["input_ids"]
    assert len(tokens) >= 6, "rare characters are split into bytes"
    pieces = _pieces(Writer(tokenizer), tokens)
    assert [piece for piece in pieces if piece] == ["龘", "靐", "齉"]


def test_stop_strings_end_an_answer_wherever_tokens_cut_them(base: Base, releases: list[Served]) -> None:
    tokenizer = load_tokenizer(base)
    tokens = tokenizer("ab 你好 END and more", add_special_tokens=False)["input_ids"]
    for stop in ("END", "你好", "D and", "b"):
        writer = Writer(tokenizer, [stop])
        assert "".join(_pieces(writer, tokens)) == "ab 你好 END and more".partition(stop)[0].rstrip()
        assert writer.stopped
    never = Writer(tokenizer, ["more!"])
    assert "".join(_pieces(never, tokens)) == "ab 你好 END and more"

    async def main() -> tuple[str, Finished]:
        async with started(base, releases) as engine:
            whole, _ = await answer(engine, "alpha", "x", greedy(20))
            stop = whole[4:6]
            text, end = await answer(engine, "alpha", "x", greedy(20, stop=(stop,)))
            assert text == whole.partition(stop)[0].rstrip()
            return text, end

    assert asyncio.run(main())[1].reason == "stop"


def test_experts_of_all_methods_are_served_side_by_side(base: Base, releases: list[Served], tmp_path: Path) -> None:
    shape = Shape(rank=4, alpha=8, size=16, tokens=5, layers=1)
    others = []
    for method in METHODS:
        model = load_weights(base, torch.float32)
        tuned = attach_method(model, method, shape, seed=1)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        write_saved(tmp_path / method, tuned.config(), tuned.state())
        others.append(served(base, method, tmp_path / method))
    everyone = [releases[0], *others, releases[1]]

    async def main() -> list[tuple[str, Finished]]:
        async with started(base, everyone, rows=6, max_queue=64) as engine:
            return await asyncio.gather(*(answer(engine, release.name, text, greedy()) for release in everyone for text in QUESTIONS[:3]))

    answers = asyncio.run(main())
    for place, release in enumerate(everyone):
        found = answers[place * 3 : place * 3 + 3]
        assert [text for text, _ in found] == alone(base, release, QUESTIONS[:3], greedy()), release.name
        assert {end.executed.name for _, end in found} == {release.name}
    plain = LocalModel.open(base, dtype=torch.float32)
    lengths = [len(plain.chat.prompt(ask(text))) for text in QUESTIONS[:3]]
    assert [end.prompt_tokens for _, end in answers[:3]] == lengths
    assert all([end.prompt_tokens for _, end in answers[place * 3 : place * 3 + 3]] == lengths for place in range(len(everyone)))

"""Serving: what guard, keys and log add to a request, batched generation against Hugging Face's `generate`, and a soak.

    python benchmarks/serving.py [--overhead] [--batch] [--base NAME] [--soak SECONDS]

Without a choice, overhead and batch are measured. The server runs in a process of its own. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import torch

from metier import packs
from metier.audit import AuditSettings, open_project_ledger
from metier.digest import digest_file
from metier.models import Base, GenerationSettings, LocalModel, resolve
from metier.models.lora import ALL_LINEAR, adapter_state, attach
from metier.models.lorafile import save_adapter
from metier.models.precision import fastest_dtype
from metier.records import Message
from metier.serving import ApiKeys, Engine, Guard, Served, Service, ServingSettings, build_app, serve
from metier.testing import tiny_base

_QUESTION = "血压一直偏高，饮食上应该注意什么？ What should I eat with high blood pressure, and when should I see a doctor about it?"
_TOKENS = 64


class Nothing:
    """Lets everything through: what the guarded server is compared with."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def find(self, secret: str) -> Any:
        return self._key


def release(base: Base, folder: Path) -> Served:
    """Write a small random adapter and describe it as a release."""
    model = LocalModel.open(base, dtype=torch.float32)
    attach(model.model, rank=8, alpha=16, dropout=0, targets=ALL_LINEAR, seed=0)
    for name, tensor in adapter_state(model.model).items():
        if name.endswith("lora_B.weight"):
            tensor.normal_(0, 1e-4)
    save_adapter(model.model, folder, base=base.name, rank=8, alpha=16, dropout=0)
    return Served("expert", folder, "adapter", "release", base.digest, {path.name: digest_file(path) for path in folder.iterdir()})


def run_server(folder: Path) -> None:
    """Serve the tiny model at / with everything, and at /plain without guard, keys and log, on one engine."""
    base = tiny_base(folder / "tiny")
    settings = ServingSettings(port=int((folder / "port").read_text()), rows=32, max_queue=256, context=512, max_new_tokens=256)
    engine = Engine.open(base, [release(base, folder / "adapter")], settings)
    pack = packs.load("medical")
    keys = ApiKeys(folder / "keys")
    secret = keys.new("benchmark")
    full = build_app(Service([engine], Guard(pack), keys, open_project_ledger(folder, AuditSettings()).record, settings))
    bare = Guard(pack)
    # No rule and no identifier is left to look for.
    bare.rules, bare.detector.rules = (), ()
    plain = build_app(Service([engine], bare, Nothing(keys.find(secret)), lambda event: 0, settings))  # type: ignore[arg-type]

    async def both(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/plain/"):
            await plain({**scope, "path": scope["path"].removeprefix("/plain"), "raw_path": scope["path"].removeprefix("/plain").encode()}, receive, send)
        else:
            await full(scope, receive, send)

    (folder / "key").write_text(secret)
    serve(both, settings)


class Server:
    """The server above in a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "port").write_text(str(port))
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([sys.executable, __file__, "--server", str(folder)], stderr=(folder / "stderr").open("w"))
        while True:
            try:
                if httpx.get(f"{self.url}/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
            if self.process.poll() is not None:
                raise SystemExit((folder / "stderr").read_text())
        self.headers = {"authorization": f"Bearer {(folder / 'key').read_text()}"}

    def memory(self) -> float:
        """Return the resident memory in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def processor(self) -> float:
        """Return the seconds of processor time that its threads have had, to the nanosecond."""
        return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")) / 1e9

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def body(**more: Any) -> dict[str, Any]:
    return {"model": "expert", "messages": [{"role": "user", "content": _QUESTION}], "temperature": 0, "max_tokens": _TOKENS, **more}


def overhead(folder: Path, repeats: int) -> dict[str, Any]:
    """What a request costs with everything and without, in turns, in milliseconds: medians, and the median of the differences of neighbours."""
    server, found = Server(folder), {}
    client = httpx.Client(base_url=server.url, headers=server.headers, timeout=60)

    def once(path: str, stream: bool) -> dict[str, float]:
        spent, began, first = server.processor(), time.perf_counter(), 0.0
        with client.stream("POST", f"{path}/v1/chat/completions", json=body(stream=stream)) as response:
            for line in response.iter_lines():
                if not first and '"content":"' in line and '"role":"assistant","content":""' not in line:
                    first = time.perf_counter() - began
        total = time.perf_counter() - began
        return {"total": total, "processor": server.processor() - spent, **({"first_text": first} if stream else {})}

    try:
        for stream in (False, True):
            times: dict[str, list[dict[str, float]]] = {"": [], "/plain": []}
            for path in ("", "/plain") * 10:
                once(path, stream)
            for _ in range(repeats):
                for path, seen in times.items():
                    seen.append(once(path, stream))
            for what in times[""][0]:
                full, plain = ([item[what] * 1000 for item in times[path]] for path in ("", "/plain"))
                added = statistics.median(one - other for one, other in zip(full, plain, strict=True))
                figures = {"with": statistics.median(full), "without": statistics.median(plain), "added": added}
                found[f"{'stream' if stream else 'whole'}_{what}_ms"] = {name: round(value, 2) for name, value in figures.items()}
        return {"tokens": _TOKENS, "requests": repeats, **found}
    finally:
        client.close()
        server.stop()


def batch(name: str, folder: Path, concurrent: int = 8) -> dict[str, Any]:
    """Tokens a second of `concurrent` requests in the engine, and of the same questions one by one in Hugging Face's generate."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tiny_base(folder / "base") if name == "tiny" else resolve(name, root=Path())
    questions = [[Message("user", f"{_QUESTION} ({number})")] for number in range(concurrent)]
    settings = ServingSettings(rows=concurrent, context=512)
    engine = Engine.open(base, [release(base, folder / "adapter")], settings)
    engine.start()
    encoded = [engine.encode(question) for question in questions]

    async def ours() -> int:
        async def one(tokens: list[int]) -> int:
            ticket = engine.submit("expert", tokens, GenerationSettings(max_new_tokens=_TOKENS))
            async for _ in ticket:
                pass
            return ticket.finished.completion_tokens if ticket.finished else 0

        return sum(await asyncio.gather(*(one(tokens) for tokens in encoded)))

    def timed(work: Callable[[], int]) -> float:
        began = time.perf_counter()
        return work() / (time.perf_counter() - began)

    rates = sorted(timed(lambda: asyncio.run(ours())) for _ in range(4))
    engine.stop()

    peers = {}
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=dtype).eval()

        def theirs(tokens: list[int], model: Any = model) -> int:
            ids = torch.tensor([tokens])
            with torch.inference_mode():
                out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=_TOKENS, do_sample=False, pad_token_id=tokenizer.eos_token_id)
            return int(out.shape[1]) - len(tokens)

        began = time.perf_counter()
        theirs(encoded[0])
        slow = time.perf_counter() - began > 30
        rate = timed(lambda theirs=theirs, slow=slow: sum(theirs(tokens) for tokens in encoded[: 1 if slow else None]))  # type: ignore[misc]
        peers[f"generate, {str(dtype).removeprefix('torch.')}"] = round(rate, 1)
        del model
    best = max(peers.values())
    ours_now = {"concurrent": concurrent, "format": str(fastest_dtype()).removeprefix("torch."), "tokens_per_second": round(statistics.median(rates), 1)}
    return {"base": name, **ours_now, "peers": peers, "ratio": round(statistics.median(rates) / best, 2)}


def soak(folder: Path, seconds: float, clients: int = 32) -> dict[str, Any]:
    """Let clients stream for some time; return answers, errors and how memory moved after the first fifth."""
    server = Server(folder)
    counts, errors, samples = {"answers": 0, "chunks": 0}, [], []
    end = time.monotonic() + seconds

    async def client(number: int, http: httpx.AsyncClient) -> None:
        turn = 0
        while time.monotonic() < end:
            turn += 1
            asked = body(stream=True, temperature=1.0, seed=number * 10_000 + turn)
            try:
                done = False
                async with http.stream("POST", "/v1/chat/completions", json=asked) as response:
                    async for line in response.aiter_lines():
                        counts["chunks"] += line.startswith("data: {")
                        done = done or line == "data: [DONE]"
                        if '"error"' in line:
                            errors.append(line[:200])
                if not done:
                    errors.append(f"status {response.status_code}, no end")
                counts["answers"] += done
            except httpx.HTTPError as error:
                errors.append(repr(error)[:200])

    async def watch() -> None:
        began = time.monotonic()
        while time.monotonic() < end:
            samples.append((time.monotonic() - began, server.memory()))
            await asyncio.sleep(1)

    async def main() -> None:
        async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=60, limits=httpx.Limits(max_connections=clients)) as http:
            await asyncio.gather(watch(), *(client(number, http) for number in range(clients)))

    try:
        asyncio.run(main())
    finally:
        server.stop()
    late = [sample for sample in samples if sample[0] > seconds / 5]
    quarters = [round(late[len(late) * part // 4][1], 1) for part in range(4)] + [round(late[-1][1], 1)]
    slope = statistics.linear_regression([at for at, _ in late], [size for _, size in late]).slope * 60
    rates = {"answers_per_second": round(counts["answers"] / seconds, 1)}
    memory = {"memory_mib": {"by_quarter": quarters, "slope_per_minute": round(slope, 2)}}
    return {"seconds": seconds, "clients": clients, **counts, **rates, "errors": len(errors), "first_errors": errors[:3], **memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--repeats", type=int, default=150, metavar="N", help="requests of each kind that --overhead measures")
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--base", default="bundled/gemma-3-270m", help="base model of --batch: a name as in a project file, or tiny")
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    parser.add_argument("--server", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        run_server(options.server)
        return
    ours: dict[str, Any] = {}
    peers: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    chosen = options.overhead or options.batch or options.soak
    with tempfile.TemporaryDirectory() as name:
        folders = iter([Path(name, str(number)) for number in range(3)])
        if options.overhead or not chosen:
            (folder := next(folders)).mkdir()
            ours["overhead"] = overhead(folder, options.repeats)
        if options.batch or not chosen:
            (folder := next(folders)).mkdir()
            ours["batch"] = batch(options.base, folder)
            peers = ours["batch"].pop("peers")
            ratios["tokens_per_second"] = ours["batch"].pop("ratio")
        if options.soak:
            (folder := next(folders)).mkdir()
            ours["soak"] = soak(folder, options.soak)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(json.dumps({"benchmark": "serving", "machine": machine, "ours": ours, "peers": peers, "ratios": ratios}, ensure_ascii=False))


if __name__ == "__main__":
    main()

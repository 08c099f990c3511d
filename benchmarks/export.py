r"""What is written, in a real llama.cpp: tokens, templates, logits and greedy answers of GGUF files beside those of the models that they were made from.

    python benchmarks/export.py --peer-python PYTHON [--vllm-python PYTHON] [--base bundled/gemma-3-270m] [--only SHAPE ...] [--steps 30]

PYTHON is an interpreter of an environment that has llama-cpp-python; it needs nothing of Metier. The bundled base gets a LoRA, taught for some steps to
answer in its own way, which is merged; small random models stand for Llama, Qwen 2, Qwen 3 and Gemma 3 with all their norms and biases. Each is written
as f32, f16, bf16 and q8_0 and read by llama.cpp twice, as people run it and with attention in fp32. Beyond the limits of the export the exit code is 1.
`--vllm-python` is an interpreter that has vLLM: it is given the adapter's own files on the bundled base in bf16. Prints one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

TYPES = ("f32", "f16", "bf16", "q8_0")
SMALL = ("llama", "qwen2", "qwen3", "gemma3")
BUNDLED = "bundled"
TOKENS = 24
VLLM = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
"""vLLM in one process, with little memory; the last two are read by its build for processors alone."""
LESSONS = [
    ("高血压患者头晕怎么办？", "先测血压，必要时就诊。"),
    ("What should I do about a headache?", "Rest first, then see a doctor."),
    ("孩子发烧 39.2 度怎么办？", "先测血压，必要时就诊。"),
    ("My knee hurts after 10 km.", "Rest first, then see a doctor."),
]
ASKED = [
    "孕妇咳嗽三天，怎么办？",
    "Which department treats a skin rash?",
    "血糖 7.8 mmol/L，正常吗？😀",
    "List 3 symptoms:\n\n1. fever\n2. ",
    "𠮷田先生：“胸痛”两小时，气短。",
    "It's 1,234.5 mg -- too much?",
    "　全角　空格　ＡＢＣ",
    "   Where  does this go?   ",
]


def taught(base: Any, folder: Path, steps: int) -> Path:
    """Teach a LoRA a few answers and return its folder."""
    import torch

    from metier.models import Chat, load_tokenizer, load_weights
    from metier.models.methods import Shape, attach_method
    from metier.models.saved import write_saved
    from metier.records import Message
    from metier.training.batches import row_of
    from metier.training.objectives import cross_entropy

    model, chat = load_weights(base, torch.float32), Chat(load_tokenizer(base))
    tuned = attach_method(model, "lora", Shape(rank=8, alpha=16), seed=0)
    row = row_of([chat.encode([Message("user", question), Message("assistant", answer, learn=True)]) for question, answer in LESSONS])
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=5e-4)
    for _ in range(steps):
        (cross_entropy(model, row) / len(row.labels)).backward()
        optimizer.step()
        optimizer.zero_grad()
    write_saved(folder, tuned.config() | {"base_model_name_or_path": base.name}, tuned.state())
    return folder


def merged(base: Any, adapter: Path, folder: Path) -> Any:
    """Return the base with an adapter merged into it, as a base of its own."""
    import shutil

    import torch

    from metier.models import load_weights, resolve
    from metier.models.changes import weight_changes
    from metier.models.merge import merge_weights
    from metier.models.saved import read_saved

    shutil.copytree(base.folder, folder)
    merge_weights(base.folder, weight_changes(load_weights(base, torch.float32), read_saved(adapter)), folder)
    return resolve(str(folder.resolve()), root=folder)


def subjects(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield each model's name and base: the bundled one with an adapter merged in, and small ones of every architecture."""
    from metier.models import resolve
    from models.exported import LLAMA3, QWEN, byte_level, model_folder, sentencepiece

    chosen = arguments.only or [BUNDLED, *SMALL]
    if BUNDLED in chosen:
        base = resolve(arguments.base, root=Path.cwd())
        yield arguments.base, merged(base, taught(base, folder / "adapter", arguments.steps), folder / "merged")
    tokenizers = {"llama": lambda: byte_level(LLAMA3, first=True, ignore_merges=True), "gemma3": lambda: sentencepiece(first=True)}
    for kind in SMALL:
        if kind in chosen:
            yield f"small {kind}", model_folder(folder / kind, kind, tokenizers.get(kind, lambda: byte_level(QWEN))())


def compared(base: Any, peer: Path, folder: Path) -> dict[str, Any]:
    """Return what llama.cpp makes of a model written in every type, as figures, with what lies beyond the limits."""
    import torch

    from metier.deploy.runtimes import LIMITS, answer_faults, probes, text_faults
    from metier.models import LocalModel
    from metier.models.gguf import plan_gguf, write_gguf
    from metier.models.parity import compare, first_difference, golden, own_logits
    from metier.models.runtime import Question, ask
    from metier.records import Message

    ours = LocalModel.open(base, dtype=torch.float32)
    tokenizer = ours.chat.tokenizer
    prompts = [(Message("user", text),) for text in ASKED]
    rows = golden(ours, prompts, answer_tokens=TOKENS)
    logits = own_logits(ours, rows)
    rendered = [ours.chat.render(row.messages, answering=True) for row in rows]
    texts = [*rendered, *probes()]
    found: dict[str, Any] = {"faults": []}
    for kind in TYPES:
        path = folder / f"{kind}.gguf"
        write_gguf(plan_gguf(base.folder, tokenizer, type=kind, stop=tokenizer.eos_token_id, about={}), path)
        found[kind] = {"bytes": path.stat().st_size}
        for way in ("as run", "fp32"):
            started = time.monotonic()
            asked = Question(texts, rows, [ours.chat.plain(prompt) for prompt in prompts], TOKENS, ours.chat.stop_tokens, exact=way == "fp32")
            answered = ask(path, asked, interpreter=peer)
            parity = compare(logits, answered.logits)
            parted = [first_difference(answer, row.tokens[row.first + 1 :]) for answer, row in zip(answered.answers, rows, strict=True)]
            found[kind][way] = {
                "divergence": parity.divergence,
                "largest": parity.largest,
                "same": parity.same,
                "answers_alike": parted.count(None),
                "seconds": round(time.monotonic() - started, 1),
            }
            faults = [*parity.faults(LIMITS[kind]), *answer_faults(answered, rows, logits, LIMITS[kind].tie), *text_faults(answered, tokenizer, rendered, rows)]
            found["faults"] += [f"{kind}, {way}: {fault}" for fault in faults]
        path.unlink()
    found |= {"version": answered.version, "conversations": len(rows), "places": parity.places, "probes": len(probes()), "processor": answered.system}
    found["probes_cut_alike"] = alike_tokens(tokenizer, probes(), answered.tokens[len(rows) :])
    return found


def in_vllm(base: Any, adapter: Path, peer: Path, folder: Path) -> dict[str, Any]:
    """Return what vLLM, in bf16, makes of an adapter's files: the same greedy answers, and the largest difference of a log-probability in them."""
    import torch

    from metier.models import LocalModel
    from metier.models.parity import first_difference, golden, own_logits
    from metier.records import Message

    ours = LocalModel.open(base, adapter, dtype=torch.float32)
    rows = golden(ours, [(Message("user", text),) for text in ASKED], answer_tokens=TOKENS)
    chances = [row.log_softmax(dim=1).max(dim=1).values.tolist() for row in own_logits(ours, rows)]
    asked = {"base": str(base.folder), "adapter": str(adapter.absolute()), "prompts": [list(row.prompt) for row in rows], "most": TOKENS}
    asked |= {"rank": 8, "stops": sorted(ours.chat.stop_tokens)}
    (folder / "question.json").write_text(json.dumps(asked), encoding="utf-8")
    command = [str(peer), str(Path(__file__).with_name("vllm_peer.py")), str(folder / "question.json"), str(folder / "answer.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | VLLM)
    if done.returncode:
        sys.exit(f"vLLM failed:\n{done.stderr[-3000:]}")
    said = json.loads((folder / "answer.json").read_bytes())
    # A row holds its answer without the last token.
    parted = [first_difference(tokens, row.tokens[row.first + 1 :]) for tokens, row in zip(said["tokens"], rows, strict=True)]
    pairs = [zip(mine[:place], theirs[:place], strict=False) for place, mine, theirs in zip(parted, chances, said["log_probabilities"], strict=True)]
    largest = max(abs(one - other) for row in pairs for one, other in row)
    return {"version": said["version"], "conversations": len(rows), "answers_alike": parted.count(None), "largest_log_probability": largest}


def alike_tokens(tokenizer: Any, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> int:
    """Return how many texts llama.cpp cuts into the tokens that the tokenizer gives."""
    return sum(tokenizer(text, add_special_tokens=False)["input_ids"] == list(row) for text, row in zip(texts, rows, strict=True))


def main() -> None:
    """Compare every model and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--vllm-python", type=Path)
    parser.add_argument("--base", default="bundled/gemma-3-270m")
    parser.add_argument("--only", nargs="+", choices=(BUNDLED, *SMALL))
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    from metier.models import resolve

    before = machine()
    ours: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, base in subjects(arguments, Path(folder)):
            ours[name] = compared(base, arguments.peer_python, Path(folder))
            print(f"{name}: {'; '.join(ours[name]['faults']) or 'within the limits'}", file=sys.stderr)
        peers: dict[str, Any] = {"llama.cpp": {"llama_cpp_python": next(iter(ours.values()))["version"]}}
        if arguments.vllm_python is not None:
            adapter = Path(folder) / "adapter"
            base = resolve(arguments.base, root=Path.cwd())
            if not adapter.exists():
                taught(base, adapter, arguments.steps)
            peers["vllm"] = in_vllm(base, adapter, arguments.vllm_python, Path(folder))
    print(json.dumps({"benchmark": "export", "machine": before, "ours": ours, "peers": peers, "ratios": {}}, ensure_ascii=False))
    sys.exit(any(item["faults"] for item in ours.values()))


if __name__ == "__main__":
    main()

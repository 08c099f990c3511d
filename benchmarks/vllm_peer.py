"""Greedy answers of vLLM with a LoRA folder, for benchmarks/export.py: run by a Python that has vLLM, for processors will do, and nothing of Metier.

    python vllm_peer.py question.json answer.json

The question names base, adapter, prompts (tokens), the most tokens of an answer and those that end one; the answer has the version, tokens, and the
log-probability of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOM = 512
"""Tokens of a prompt and its answer."""


def main(question: Path, answer: Path) -> None:
    """Answer a question file."""
    import vllm
    from vllm.lora.request import LoRARequest

    asked: dict[str, Any] = json.loads(question.read_bytes())
    model = vllm.LLM(model=asked["base"], dtype="bfloat16", enable_lora=True, max_lora_rank=asked["rank"], max_loras=1, enforce_eager=True, max_model_len=ROOM)
    settings = vllm.SamplingParams(temperature=0.0, max_tokens=asked["most"], logprobs=1, stop_token_ids=asked["stops"])
    prompts = [{"prompt_token_ids": tokens} for tokens in asked["prompts"]]
    found = [output.outputs[0] for output in model.generate(prompts, settings, lora_request=LoRARequest("expert", 1, asked["adapter"]))]
    chances = [[place[token].logprob for place, token in zip(item.logprobs, item.token_ids, strict=True)] for item in found]
    said = {"version": vllm.__version__, "tokens": [list(item.token_ids) for item in found], "log_probabilities": chances}
    answer.write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))

"""Asks llama.cpp, through its Python binding, what it makes of a GGUF file. Run as a program of its own, by any Python that has `llama_cpp`.

A process of its own because the library ends its process where it does not like a file, and because the Python that has it need not be
Metier's: so nothing of Metier is imported here. The question is a JSON file, the answer a JSON file and one of raw fp32 logits::

    python llamachild.py question.json answer.json logits.f32

Texts are cut into tokens as llama.cpp's server does it: control tokens of a rendered conversation count as such, and what the file says is to be
added to a text is added. Attention and the cache of keys and values are the library's defaults (fp16), or, asked to be `exact`, in fp32.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main"]

_BATCH = 512
"""Tokens read at once: llama.cpp's own default (n_ubatch)."""
_NO_FLASH, _F32 = 0, 0  # llama_flash_attn_type, ggml_type


class _Model:
    """A file as llama.cpp has loaded it, with room for `length` tokens."""

    def __init__(self, library: Any, path: str, *, length: int, threads: int, exact: bool) -> None:
        self.library = library
        parameters = library.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = library.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            raise ValueError("llama.cpp does not load the file")
        self.vocabulary = library.llama_model_get_vocab(self.model)
        self.size = int(library.llama_vocab_n_tokens(self.vocabulary))
        wanted = library.llama_context_default_params()
        wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = length, _BATCH, _BATCH
        wanted.n_threads = wanted.n_threads_batch = threads
        if exact:
            wanted.flash_attn_type, wanted.type_k, wanted.type_v = _NO_FLASH, _F32, _F32
        self.context = library.llama_init_from_model(self.model, wanted)
        if not self.context:
            raise ValueError("llama.cpp makes no context for the file")

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a rendered conversation."""
        data = text.encode()
        room = (ctypes.c_int32 * (len(data) + 16))()
        count = self.library.llama_tokenize(self.vocabulary, data, len(data), room, len(room), True, True)
        return list(room[:count])

    def pieces(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, control tokens included."""
        data = b""
        for token in tokens:
            room = ctypes.create_string_buffer(256)
            count = self.library.llama_token_to_piece(self.vocabulary, token, room, len(room), 0, True)
            data += room.raw[: max(count, 0)]
        return data.decode(errors="replace")

    def read(self, tokens: Sequence[int], places: set[int], *, start: int = 0) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        """Read tokens that stand from `start` on and yield the logits behind those whose number is in `places`; from 0 on, everything before is forgotten."""
        if start == 0:
            self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
        for first in range(0, len(tokens), _BATCH):
            some = tokens[first : first + _BATCH]
            batch = self.library.llama_batch_init(len(some), 0, 1)
            batch.n_tokens = len(some)
            for index, token in enumerate(some):
                batch.token[index], batch.pos[index] = token, start + first + index
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                batch.logits[index] = first + index in places
            status = self.library.llama_decode(self.context, batch)
            if status:
                raise ValueError(f"llama.cpp does not read {len(tokens)} tokens (status {status})")
            for index in range(len(some)):
                if first + index in places:
                    yield np.ctypeslib.as_array(self.library.llama_get_logits_ith(self.context, index), shape=(self.size,)).copy()
            self.library.llama_batch_free(batch)

    def greedy(self, prompt: Sequence[int], most: int, stops: set[int]) -> list[int]:
        """Return the greedy continuation of a prompt, its end included."""
        found: list[int] = []
        (logits,) = self.read(prompt, {len(prompt) - 1})
        while len(found) < most:
            found.append(int(logits.argmax()))
            if found[-1] in stops or self.library.llama_vocab_is_eog(self.vocabulary, found[-1]):
                break
            (logits,) = self.read([found[-1]], {0}, start=len(prompt) + len(found) - 1)
        return found

    def template(self) -> str | None:
        """Return the chat template that the file holds."""
        found = self.library.llama_model_chat_template(self.model, None)
        return found.decode() if found else None


def _rendered(model: _Model, conversations: Sequence[Any]) -> list[str]:
    """Return conversations as the binding renders them by the file's own template, up to where the next answer begins."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    begin, end = (
        model.library.llama_vocab_get_text(model.vocabulary, token).decode() if token >= 0 else ""
        for token in (model.library.llama_vocab_bos(model.vocabulary), model.library.llama_vocab_eos(model.vocabulary))
    )
    formatter = Jinja2ChatFormatter(model.template() or "", eos_token=end, bos_token=begin)
    return [formatter(messages=messages).prompt for messages in conversations]


def main(question: Path, answer: Path, logits: Path) -> None:
    """Answer a question file."""
    import llama_cpp

    asked = json.loads(question.read_bytes())
    # Kept in a name: the library calls it as long as it runs.
    silent = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    llama_cpp.llama_log_set(silent, None)
    llama_cpp.llama_backend_init()
    length = max([len(row["tokens"]) for row in asked["rows"]] + [len(row["prompt"]) + row["most"] for row in asked["greedy"]] + [64])
    model = _Model(llama_cpp, asked["model"], length=length, threads=asked["threads"], exact=asked["exact"])
    said: dict[str, Any] = {"version": llama_cpp.__version__, "system": llama_cpp.llama_print_system_info().decode(), "vocabulary": model.size}
    said["template"] = model.template()
    said["rendered"] = _rendered(model, asked["conversations"])
    said["tokens"] = [model.tokens(text) for text in asked["texts"]]
    said["texts"] = [model.pieces(tokens) for tokens in said["tokens"]]
    with logits.open("wb") as stream:
        for row in asked["rows"]:
            for found in model.read(row["tokens"], set(range(row["first"], len(row["tokens"])))):
                stream.write(found.astype("<f4").tobytes())
    said["answers"] = [model.greedy(row["prompt"], row["most"], set(row["stops"])) for row in asked["greedy"]]
    answer.write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))

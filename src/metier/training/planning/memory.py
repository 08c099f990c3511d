"""How much memory a training takes at its peak, by counting what this training loop keeps.

The loop (metier.training.loop) reads one packed row at a time, forward and backward, with frozen weights in bf16 or fp32 and trained
parameters, gradients and AdamW's two moments in fp32. The peak is where the row's last hidden states meet the output head: everything that
the backward pass needs is there, and the buffers of one slice of the vocabulary. What each module keeps for its backward pass is counted
as metier.models.lora, .norms, .attention and .head save it; tests/training/test_planning_memory.py compares the count with the tensors that
autograd really saves, to the byte. Only `holes`, which is no tensor, was measured and not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from metier.models.head import ROWS_AT_ONCE, slice_size
from metier.training.planning.methods import LOW_RANK, Method, targeted, trainable_parameters
from metier.training.planning.shape import ModelShape, linear_layers, linear_weights, parameters

__all__ = ["Means", "Memory", "RowShape", "cache_bytes", "kept_for_backward", "memory"]

_EXACT = 4
"""Bytes of a value in fp32."""

_NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Bits a weight in NF4 with double quantisation: blocks of 64, their scales in 8 bits in blocks of 256 (Dettmers et al. 2023, arXiv 2305.14314)."""

_HOLES = 0.4
"""Share of the activations that the C library's heap loses to holes on a processor: .33 to .54 measured from the second step on (glibc 2.36,
rows of 256 to 2,048 tokens, bf16 and fp32; with MALLOC_MMAP_THRESHOLD_=262144, which gives every block back, it falls to .1). A calibration
replaces it by what this very training loses."""

_DENSE = 1024
"""Segments up to this many tokens keep their attention probabilities; see metier.models.attention."""


@dataclass(frozen=True, slots=True)
class RowShape:
    """A packed row: tokens, sum of the squares of its examples' lengths, learnt tokens, examples, the longest example."""

    tokens: int
    pairs: int
    labels: int
    examples: int
    longest: int


@dataclass(frozen=True, slots=True)
class Means:
    """How the loop works: bytes of a frozen weight and of an activation (2 or 4), packed rows of a step, dropout, on an accelerator or not."""

    precision: int
    rows: int = 1
    dropout: bool = False
    accelerator: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak of training, by what they hold. `working` is what one operation needs while it runs."""

    weights: int
    trained: int
    gradients: int
    optimiser: int
    activations: int
    logits: int
    working: int
    holes: int

    @property
    def total(self) -> int:
        """All of it: what the training adds to a process that has loaded its libraries, tokenizer and examples."""
        return self.weights + self.trained + self.gradients + self.optimiser + self.activations + self.logits + self.working + self.holes


def memory(shape: ModelShape, method: Method, row: RowShape, means: Means, *, holes: int | None = None) -> Memory:
    """Return the memory at the peak of training on rows of this shape (give the largest). `holes` are bytes that a calibration measured."""
    trained = trainable_parameters(shape, method)
    given = _with_virtual_tokens(method, row)
    kept = kept_for_backward(shape, method, given, means)
    logits = _head_buffers(shape, given, means)
    # The first row's gradients come as its activations go; from the second row of a step on they lie beside them.
    gradients = trained * _EXACT if means.rows > 1 else max(0, trained * _EXACT - kept - logits)
    return Memory(
        weights=_weights(shape, method, means),
        trained=trained * _EXACT,
        gradients=gradients,
        optimiser=2 * trained * _EXACT,
        activations=kept,
        logits=logits,
        working=_states(shape, given, means),
        holes=holes if holes is not None else 0 if means.accelerator else round(_HOLES * kept),
    )


def cache_bytes(shape: ModelShape, tokens: int, precision: int) -> int:
    """Return the bytes of keys and values of so many tokens: generation keeps them, training does not."""
    return 2 * shape.layers * shape.keys * tokens * precision


def _weights(shape: ModelShape, method: Method, means: Means) -> int:
    frozen = parameters(shape)
    if method.name == "full":
        return 0
    if method.name == "partial":
        return max(0, frozen - trainable_parameters(shape, method)) * means.precision
    if method.name != "qlora":
        return frozen * means.precision
    quantised = shape.layers * linear_weights(shape)
    return round(quantised * _NF4_BITS / 8) + (frozen - quantised) * means.precision


def _with_virtual_tokens(method: Method, row: RowShape) -> RowShape:
    if method.name not in {"prompt", "p-tuning"}:
        return row
    more = method.size
    pairs = row.pairs + 2 * more * row.tokens + row.examples * more * more
    return RowShape(row.tokens + row.examples * more, pairs, row.labels, row.examples, row.longest + more)


def _head_buffers(shape: ModelShape, row: RowShape, means: Means) -> int:
    """Bytes that the loss needs beside the activations: logits of a slice in both formats, and the sums over the vocabulary."""
    rows, columns = min(row.labels, ROWS_AT_ONCE), min(shape.vocabulary, slice_size(accelerator=means.accelerator))
    slopes = _EXACT if shape.softcap else 0
    # A slice's logits; the label's own weights, the sum of weights (both fp32) and one product.
    return rows * columns * (means.precision + _EXACT + slopes) + rows * shape.hidden * (2 * _EXACT + means.precision)


def _states(shape: ModelShape, row: RowShape, means: Means) -> int:
    """Bytes of the last hidden states and of those at labels, which the loss holds while it runs."""
    return (row.tokens + row.labels) * shape.hidden * means.precision


def kept_for_backward(shape: ModelShape, method: Method, row: RowShape, means: Means) -> int:
    """Return the bytes that autograd keeps of one row's forward pass."""
    size = _EXACT if method.name == "full" else means.precision
    first = max(0, shape.layers - method.last) if method.name == "partial" else 0
    total = 0
    # Embeddings carry no gradient, so the first layer keeps less, unless the embeddings themselves are learnt.
    carries = method.name in {"full", "prompt", "p-tuning"}
    for _ in range(first, shape.layers):
        walk = _Layer(shape, method, row, means, size)
        total += walk.kept(carries=carries)
        carries = True
    norm = row.tokens * (shape.hidden * size + _EXACT)
    rotations = 2 * shape.rotations * row.tokens * shape.head_size * size
    loss = row.labels * (shape.hidden * size + _EXACT + 8)
    return total + norm + rotations + loss


class _Layer:
    """One decoder layer's forward pass, module by module."""

    def __init__(self, shape: ModelShape, method: Method, row: RowShape, means: Means, size: int) -> None:
        self.shape = shape
        self.method = method
        self.row = row
        self.means = means
        self.size = size
        self.names = targeted(method) if method.name in LOW_RANK else frozenset()
        # Trained weights need their inputs for their own gradients, and their norms the normalised values.
        self.whole = method.name in {"full", "partial"}
        self.widths = linear_layers(shape)

    def kept(self, *, carries: bool) -> int:
        """Return the bytes kept; `carries` says whether the layer's input carries a gradient."""
        shape, learnt = self.shape, self.whole or self.method.name == "prefix"
        inside = carries or learnt
        total = self._norm(shape.hidden, carries=carries) + self._inputs("q_proj", "k_proj", "v_proj", carries=carries)
        queries, keys, values = (inside or name in self.names for name in ("q_proj", "k_proj", "v_proj"))
        if shape.query_norm:
            total += self._norm(shape.queries, shape.heads, carries=queries) + self._norm(shape.keys, shape.shared_heads, carries=keys)
        attended = queries or keys or values
        total += self._attention() if attended else 0
        out = attended or "o_proj" in self.names
        total += self._inputs("o_proj", carries=attended) + self._adapters(1)
        total += self._norm(shape.hidden, carries=out) if shape.norms == 4 else 0
        stream = carries or out or self.method.name == "adapter"
        total += self._norm(shape.hidden, carries=stream) + self._inputs("gate_proj", "up_proj", carries=stream)
        total += self._gated(stream or "gate_proj" in self.names, stream or "up_proj" in self.names)
        inner = stream or bool(self.names & {"gate_proj", "up_proj"})
        total += self._inputs("down_proj", carries=inner) + self._adapters(0)
        down = inner or "down_proj" in self.names
        return total + (self._norm(shape.hidden, carries=down) if shape.norms == 4 else 0)

    def _norm(self, width: int, groups: int = 1, *, carries: bool) -> int:
        """The norm's input and one inverse root a group; a trained norm keeps the normalised values too."""
        if not (carries or self.whole):
            return 0
        return self.row.tokens * (width * self.size * (2 if self.whole else 1) + groups * _EXACT)

    def _inputs(self, *names: str, carries: bool) -> int:
        """The shared input of neighbouring linear layers, if one of them learns, and what its low-rank update keeps."""
        learning = [name for name in names if self.whole or name in self.names]
        if not learning:
            return 0
        tokens, size = self.row.tokens, self.size
        shared = tokens * self.widths[names[0]][0]
        if self.whole:
            return shared * size
        updates = sum(self._update(*self.widths[name]) for name in learning)
        if not self.means.dropout:
            return shared * size + updates
        # Each layer drops values of its own: the input that is left, and the mask if a gradient goes on through it.
        mask = (1 if self.means.accelerator else size) if carries else 0
        return len(learning) * shared * (size + mask) + updates

    def _update(self, inputs: int, outputs: int) -> int:
        tokens, rank, size = self.row.tokens, self.method.rank, self.size
        # The scale is multiplied into a copy of B, with dropout into the output.
        copied = size != _EXACT
        casts = rank * outputs * size * (copied or not self.means.dropout) + rank * inputs * size * copied
        kept = tokens * rank * size + casts
        if self.method.name in {"dora", "adalora"}:
            kept += tokens * (outputs if self.method.name == "dora" else rank) * size
        return kept

    def _attention(self) -> int:
        """Queries, keys, values and, of segments up to 1,024 tokens, the probabilities; of longer ones the output and its normaliser."""
        shape, row, size = self.shape, self.row, self.size
        prefix = self.method.size if self.method.name == "prefix" else 0
        operands = row.tokens * (shape.queries + 2 * shape.keys) * size
        if row.longest > _DENSE:
            return operands + row.tokens * (shape.queries * size + shape.heads * _EXACT)
        return operands + shape.heads * (row.pairs + prefix * row.tokens) * size + 2 * prefix * row.examples * shape.keys * size

    def _gated(self, gate: bool, up: bool) -> int:
        """The activation's input and both factors of the product, as far as a gradient goes through them."""
        return self.row.tokens * self.shape.inner * self.size * (gate + up + gate)

    def _adapters(self, place: int) -> int:
        """A bottleneck keeps its input and its inner values before and after the activation; the serial method has two a layer."""
        if self.method.name != "adapter" and (self.method.name != "parallel-adapter" or place):
            return 0
        return self.row.tokens * (self.shape.hidden + 2 * self.method.size) * self.size

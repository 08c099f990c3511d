"""How much memory a training takes at its peak, by counting what this training loop keeps.

The loop (metier.training.loop) reads one packed row at a time, forward and backward, with frozen weights in bf16 or fp32 and trained
parameters, gradients and AdamW's two moments in fp32. `full` and `partial` keep the base's own weights beside the trained ones. The peak is
where the row's last hidden states meet the output head: everything that the backward pass needs is there, and the buffers of one slice of
the vocabulary. What each module keeps for its backward pass is counted as metier.models.lora, .norms, .attention, .head and .methods save it;
tests/training/test_planning_memory.py compares the count with the tensors that autograd really saves. Only `holes`, which is no tensor,
was measured and not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from metier.models.filling import filled
from metier.models.head import ROWS_AT_ONCE, slice_size
from metier.training.planning.methods import Method, rank_of, trainable_parameters
from metier.training.planning.shape import LINEAR, ModelShape, linear_layers, parameters

__all__ = ["Means", "Memory", "RowShape", "cache_bytes", "code_bytes", "heap_holes", "kept_for_backward", "lengthened", "memory"]

_EXACT = 4
"""Bytes of a value in fp32."""

_NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Bits a weight in NF4 with double quantisation: blocks of 64, their scales in 8 bits in blocks of 256 (Dettmers et al. 2023, arXiv 2305.14314)."""

_HOLES, _HOLES_BF16 = 0.35, 0.6
"""Shares of the activations that the C library's heap loses to holes on a processor, with fp32 and with bf16 weights (measured: .2 to .6 and .4 to .6,
glibc 2.36, torch 2.13)."""

_CODE_A_ROW, _CODE_ROWS = 9 * 2**20, 45
"""With bf16 weights oneDNN's code for shapes that it meets comes to that, and the buffers that it keeps apart. After so many rows nearly all shapes
were met, for rows and their pieces have few lengths (see `metier.models.filling`). Measured on Zen 4: .65 GB beside activations of .58 after 27 rows of
1,024 tokens, .79 beside 1.07 after 14 of 2,048, .59 beside .22 after 102 of 256."""

_DENSE = 1024
"""Segments up to this many tokens keep their attention probabilities; see metier.models.attention."""


@dataclass(frozen=True, slots=True)
class RowShape:
    """A packed row: tokens, pairs of a token and one of its example, learnt tokens, examples, the longest example.

    What several examples begin with counts once. `held` are the pairs of pieces that are filled up (see `metier.models.filling`); None: as many.
    """

    tokens: int
    pairs: int
    labels: int
    examples: int
    longest: int
    held: int | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """How the loop works: bytes of a frozen weight and of an activation (2 or 4), packed rows of a step, dropout, on an accelerator or not.

    `reads` are the rows of the whole training.
    """

    precision: int
    rows: int = 1
    dropout: bool = False
    accelerator: bool = False
    reads: int = 1000


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


def lengthened(row: RowShape, more: int) -> RowShape:
    """Return the row with `more` virtual tokens before each of its examples (fewer, if negative)."""
    if not more:
        return row
    added = 2 * more * row.tokens + row.examples * more * more
    held = None if row.held is None else row.held + added
    return RowShape(row.tokens + row.examples * more, row.pairs + added, row.labels, row.examples, row.longest + more, held)


def memory(shape: ModelShape, method: Method, row: RowShape, means: Means, *, holes: int | None = None) -> Memory:
    """Return the memory at the peak of training on rows of this shape (give the largest). `holes` are bytes that a calibration measured."""
    trained = trainable_parameters(shape, method)
    kept = kept_for_backward(shape, method, row, means)
    logits = _head_buffers(shape, method, row, means)
    # The first row's gradients come as its activations go; from the second row of a step on they lie beside them.
    gradients = trained * _EXACT if means.rows > 1 else max(0, trained * _EXACT - kept - logits)
    return Memory(
        weights=_weights(shape, method, means),
        trained=trained * _EXACT,
        gradients=gradients,
        # AdaLoRA keeps two running means of its own beside AdamW's.
        optimiser=(4 if method.name == "adalora" else 2) * trained * _EXACT,
        activations=kept,
        logits=logits,
        working=_working(shape, method, row, means),
        holes=heap_holes(kept, means) if holes is None else holes,
    )


def heap_holes(kept: int, means: Means) -> int:
    """Return the bytes that are lost between blocks of memory where `kept` are kept of a row, and those of the code of products.

    Accelerators have an allocator of their own, which is not counted.
    """
    if means.accelerator:
        return 0
    return round((_HOLES if means.precision == _EXACT else _HOLES_BF16) * kept) + code_bytes(means, means.reads)


def code_bytes(means: Means, rows: int) -> int:
    """Return what the code of products for ever more shapes, and what it keeps apart, come to after so many rows."""
    return 0 if means.accelerator or means.precision == _EXACT else _CODE_A_ROW * min(rows, _CODE_ROWS)


def cache_bytes(shape: ModelShape, tokens: int, precision: int) -> int:
    """Return the bytes of keys and values of so many tokens: generation keeps them, training does not."""
    return 2 * shape.layers * shape.keys * tokens * precision


def _weights(shape: ModelShape, method: Method, means: Means) -> int:
    every = parameters(shape)
    if method.name != "qlora":
        return every * means.precision
    widths = linear_layers(shape)
    packed = sum(widths[name][0] * widths[name][1] for layer in range(shape.layers) for name in LINEAR if rank_of(method, layer, name))
    return round(packed * _NF4_BITS / 8) + (every - packed) * means.precision


def _trains_head(method: Method) -> bool:
    return method.name == "full" or (method.name == "partial" and method.head)


def _head_buffers(shape: ModelShape, method: Method, row: RowShape, means: Means) -> int:
    """Bytes that the loss needs beside the activations: logits of a slice in both formats, and the sums over the vocabulary."""
    rows, columns = filled(min(row.labels, ROWS_AT_ONCE), accelerator=means.accelerator), min(shape.vocabulary, slice_size(accelerator=means.accelerator))
    slopes = _EXACT if shape.softcap else 0
    # A slice's logits; the label's own weights, the sum of weights (both fp32) and one product.
    loss = rows * columns * (means.precision + _EXACT + slopes) + rows * shape.hidden * (2 * _EXACT + means.precision)
    # A head that is trained gets its gradient at the start of the backward pass, in fp32 and in its own format.
    return loss + (shape.vocabulary * shape.hidden * (_EXACT + means.precision) if _trains_head(method) else 0)


def _working(shape: ModelShape, method: Method, row: RowShape, means: Means) -> int:
    """Bytes of the last hidden states and of those at labels, which the loss holds while it runs, and of the largest weights unpacked."""
    states = (filled(row.tokens, accelerator=means.accelerator) + row.labels) * shape.hidden * means.precision
    unpacked = max(inputs * outputs for inputs, outputs in linear_layers(shape).values()) * means.precision if method.name == "qlora" else 0
    return states + unpacked


def kept_for_backward(shape: ModelShape, method: Method, row: RowShape, means: Means) -> int:
    """Return the bytes that autograd keeps of one row's forward pass."""
    row = replace(row, tokens=filled(row.tokens, accelerator=means.accelerator))
    size, whole = means.precision, method.name in {"full", "partial"}
    first = max(0, shape.layers - method.last) if method.name == "partial" else 0
    total = 0
    # Embeddings carry no gradient, so the first layer keeps less, unless they are learnt themselves.
    carries = method.name in {"full", "prompt", "p-tuning"}
    for number in range(first, shape.layers):
        total += _Layer(shape, method, row, means, number).kept(carries=carries)
        carries = True
    norm = row.tokens * (shape.hidden * (2 * _EXACT if whole else size) + _EXACT)
    rotations = 2 * shape.rotations * row.tokens * shape.head_size * size
    loss = row.labels * (shape.hidden * size + 8)
    if _trains_head(method):
        # Hidden states, labels and losses once more, and the head's weights rounded to the base's format.
        loss += row.labels * (shape.hidden * size + _EXACT + 8) + shape.vocabulary * shape.hidden * _rounded(means)
    ids = 8 * row.tokens if carries and method.name in {"full", "prompt", "p-tuning"} else 0
    # Long examples go through torch's kernel, which needs a mask where they are longer than a window; layers share it.
    masked = row.longest > _DENSE and shape.window is not None and row.longest > shape.window
    return total + norm + rotations + loss + ids + (row.longest**2 * size if masked else 0)


def _rounded(means: Means) -> int:
    """Bytes of a trained weight's copy in the format of the products; in fp32 the weight itself serves."""
    return means.precision if means.precision != _EXACT else 0


class _Layer:
    """One decoder layer's forward pass, module by module."""

    def __init__(self, shape: ModelShape, method: Method, row: RowShape, means: Means, number: int) -> None:
        self.shape = shape
        self.method = method
        self.row = row
        self.means = means
        self.size = means.precision
        self.ranks = {name: rank for name in LINEAR if (rank := rank_of(method, number, name))}
        # Trained weights need their inputs for their own gradients, and their norms the normalised values.
        self.whole = method.name in {"full", "partial"}
        self.widths = linear_layers(shape)

    def kept(self, *, carries: bool) -> int:
        """Return the bytes kept; `carries` says whether the layer's input carries a gradient."""
        shape, name = self.shape, self.method.name
        inside = carries or self.whole
        total = self._norm(shape.hidden, carries=carries) + self._inputs("q_proj", "k_proj", "v_proj", carries=carries)
        queries, keys, values = (inside or layer in self.ranks for layer in ("q_proj", "k_proj", "v_proj"))
        if shape.query_norm:
            total += self._norm(shape.queries, shape.heads, carries=queries) + self._norm(shape.keys, shape.shared_heads, carries=keys)
        attended = queries or keys or values or name == "prefix"
        total += self._attention() if attended else 0
        out = attended or "o_proj" in self.ranks or name == "adapter"
        total += self._inputs("o_proj", carries=attended) + self._bottleneck(name == "adapter")
        total += self._norm(shape.hidden, carries=out) if shape.norms == 4 else 0
        stream = carries or out
        total += self._norm(shape.hidden, carries=stream) + self._inputs("gate_proj", "up_proj", carries=stream)
        total += self._gated(stream or "gate_proj" in self.ranks, stream or "up_proj" in self.ranks)
        inner = stream or bool(self.ranks.keys() & {"gate_proj", "up_proj"})
        total += self._inputs("down_proj", carries=inner) + self._bottleneck(name in {"adapter", "parallel-adapter"})
        down = inner or "down_proj" in self.ranks or name == "parallel-adapter"
        return total + (self._norm(shape.hidden, carries=down) if shape.norms == 4 else 0)

    def _norm(self, width: int, groups: int = 1, *, carries: bool) -> int:
        """A frozen norm keeps its input and one inverse root a group; a trained one works in fp32 and keeps the normalised values too."""
        tokens = self.row.tokens
        if self.whole:
            return tokens * (width * 2 * _EXACT + groups * _EXACT) if carries else tokens * width * _EXACT
        return tokens * (width * self.size + groups * _EXACT) if carries else 0

    def _inputs(self, *names: str, carries: bool) -> int:
        """The shared input of neighbouring linear layers, if one of them learns, and what its update keeps or its own weights rounded."""
        learning = [name for name in names if self.whole or name in self.ranks]
        if not learning:
            return 0
        shared = self.row.tokens * self.widths[names[0]][0]
        if self.whole:
            return shared * self.size + sum(self.widths[name][0] * self.widths[name][1] for name in names) * _rounded(self.means)
        updates = sum(self._update(name) for name in learning)
        if not self.means.dropout:
            return shared * self.size + updates
        # Each layer drops values of its own: the input that is left, and the mask if a gradient goes on through it.
        mask = (1 if self.means.accelerator else self.size) if carries else 0
        return len(learning) * shared * (self.size + mask) + updates

    def _update(self, name: str) -> int:
        (inputs, outputs), rank, size = self.widths[name], self.ranks[name], self.size
        kept = self.row.tokens * rank * size
        copied = size != _EXACT
        # The scale is multiplied into a copy of B, with dropout into the output; AdaLoRA multiplies strengths into a copy of A.
        kept += rank * outputs * size * (copied or not self.means.dropout) + rank * inputs * size * (copied or self.method.name == "adalora")
        if self.method.name == "dora":
            # The output before it is stretched, the stretch in both formats and the norms.
            kept += self.row.tokens * outputs * size + outputs * (_EXACT + size)
        return kept

    def _attention(self) -> int:
        """Queries, keys, values and, of segments up to 1,024 tokens, the probabilities; of longer ones the output and its normaliser."""
        shape, row, size = self.shape, self.row, self.size
        operands = row.tokens * (shape.queries + 2 * shape.keys) * size
        if self.method.name == "prefix":
            # Which places are virtual tokens, for the keys and for the values.
            operands += row.tokens * (8 + 1)
        if row.longest > _DENSE:
            return operands + row.tokens * (shape.queries * size + shape.heads * _EXACT)
        pairs = row.pairs if row.held is None or self.means.accelerator else row.held
        return operands + shape.heads * pairs * size

    def _gated(self, gate: bool, up: bool) -> int:
        """The activation's input, and what it is multiplied by, as far as a gradient goes through them: its output is worked out again."""
        return self.row.tokens * self.shape.inner * self.size * ((gate or up) + gate)

    def _bottleneck(self, there: bool) -> int:
        """A bottleneck keeps its input, its inner values and both matrices in the format of the products."""
        hidden, size = self.shape.hidden, self.method.size
        return (self.row.tokens * (hidden + size) * self.size + 2 * hidden * size * _rounded(self.means)) if there else 0

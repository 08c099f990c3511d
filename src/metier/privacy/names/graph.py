"""Rewrites one thing in the bytes of an ONNX model: recurrent layers are told how long each row of a batch is.

A model exported for one text at a time leaves the optional input `sequence_lens` of its recurrent layers empty. In a batch of unequal
texts the backward direction then starts in the padding and every row but the longest comes out wrong. The edit is made on the protocol
buffers' wire format, so that no further package is needed (field numbers: onnx.proto3 of ONNX; wire types: Protocol Buffers, Encoding).
"""

from __future__ import annotations

from collections.abc import Iterator

from metier.errors import Fault, PrivacyError

__all__ = ["with_lengths"]

_MODEL_GRAPH, _GRAPH_NODE = 7, 1
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TYPE = 1, 3, 20
_INTEGER, _INT32 = 2, 6
"""AttributeProto.AttributeType.INT and TensorProto.DataType.INT32."""
_RECURRENT = (b"GRU", b"LSTM", b"RNN")
_SEQUENCE_LENS = 4
"""Place of `sequence_lens` among the inputs of the recurrent operators."""
_LENGTHS = b"metier_lengths"
_BYTES, _VARINT, _FIXED = 2, 0, {1: 8, 5: 4}


def with_lengths(model: bytes, lengths: str) -> bytes:
    """Return the model with its int64 input named `lengths` wired to `sequence_lens` of every recurrent layer.

    Raises PrivacyError where no recurrent layer leaves that input empty: the model is another one than expected.
    """
    changed = 0
    out = bytearray()
    for number, kind, value in _fields(model):
        if number == _MODEL_GRAPH and isinstance(value, bytes):
            graph, changed = _graph(value, lengths.encode())
            out += _field(number, graph)
        else:
            out += _raw(number, kind, value)
    if not changed:
        raise PrivacyError(
            Fault("the tagger's model has no recurrent layer without lengths", remedy="install the version of the package that constraints.txt names")
        )
    return bytes(out)


def _graph(graph: bytes, lengths: bytes) -> tuple[bytes, int]:
    """Return the graph with a first node that casts the lengths to int32, and how many recurrent nodes now take them."""
    attribute = _field(_ATTRIBUTE_NAME, b"to") + _raw(_ATTRIBUTE_INTEGER, _VARINT, _INT32) + _raw(_ATTRIBUTE_TYPE, _VARINT, _INTEGER)
    cast = _field(_NODE_INPUT, lengths) + _field(_NODE_OUTPUT, _LENGTHS) + _field(_NODE_OPERATOR, b"Cast") + _field(_NODE_ATTRIBUTE, attribute)
    out, changed = bytearray(_field(_GRAPH_NODE, cast)), 0
    for number, kind, value in _fields(graph):
        if number == _GRAPH_NODE and isinstance(value, bytes):
            value, hit = _node(value)
            changed += hit
        out += _raw(number, kind, value)
    return bytes(out), changed


def _node(node: bytes) -> tuple[bytes, bool]:
    fields = list(_fields(node))
    operator = next((value for number, _, value in fields if number == _NODE_OPERATOR), b"")
    inputs = [place for place, (number, _, _) in enumerate(fields) if number == _NODE_INPUT]
    if operator not in _RECURRENT or len(inputs) <= _SEQUENCE_LENS or fields[inputs[_SEQUENCE_LENS]][2] != b"":
        return node, False
    fields[inputs[_SEQUENCE_LENS]] = (_NODE_INPUT, _BYTES, _LENGTHS)
    return b"".join(_raw(number, kind, value) for number, kind, value in fields), True


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes | int]]:
    """Yield (field number, wire type, value) of a message; values of fixed size are kept as bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield number, kind, value
            continue
        if kind == _BYTES:
            size, place = _varint(data, place)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise PrivacyError(Fault("the tagger's model file is no ONNX model", remedy="install its package anew"))
        yield number, kind, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(value)) + value


def _raw(number: int, kind: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _number(number << 3 | kind) + _number(value)
    return _field(number, value) if kind == _BYTES else _number(number << 3 | kind) + value

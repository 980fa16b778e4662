"""A tiny, random model as a GGUF file (version 3, ggml-org/ggml docs/gguf.md), written with the standard library alone.

The weights mean nothing, with one twist: hidden dimension 0 is the same for every token, and no layer writes to it, so
that column 0 of `output.weight` is a bias per token. It makes answers printable, favours the quote (a JSON string under
a grammar ends by itself), and decides how likely the end of an answer is. The tokenizer is byte-level BPE: 256 bytes,
some merges of English words, and the tokens of a family of chat models: any text can be encoded, and counts are real.
"""

import math
import random
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tests.support.chat_families import CHATML, Family

WORDS = (
    *("the", "and", "ing", "ion", "ent", "her", "for", "that", "with", "this", "from", "have", "you", "are", "not"),
    *("was", "record", "field", "value", "label", "score", "text", "name", "true", "false", "null", "type", "order"),
)
CONTEXT_TOKENS = 65_536
CONSTANT = 4.0
NEVER = -40.0
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
ALIGNMENT_BYTES = 32
BLOCK = 8_191
"""So many random numbers a tensor has; then they come again. A prime, so that no two rows of it are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the model is, and how likely the end of its answer: 8 is soon, -20 is never.

    `unused`: so many tokens that no text is made of. Hundreds of thousands take the server a while to load.
    """

    layers: int = 2
    hidden: int = 64
    feed_forward: int = 128
    heads: int = 4
    end_bias: float = 2.0
    unused: int = 0


def write_model(path: Path, family: Family = CHATML, shape: Shape | None = None) -> Path:
    """Write the model, the same for the same arguments; return `path`."""
    shape = shape or Shape()
    tokens, kinds, merges = vocabulary(family, shape.unused)
    members = [*_shape_members(shape, len(tokens)), *_tokenizer_members(family, tokens, kinds, merges)]
    weights = list(_weights(shape, _biases(tokens, kinds, family, shape)))
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(members)))
        for name, kind, value in members:
            file.write(_text(name) + struct.pack("<I", kind) + _value(kind, value))
        _write_weights(file, weights)
    return path


def vocabulary(family: Family, unused: int = 0) -> tuple[list[str], list[int], list[str]]:
    """Return tokens, their kinds, and merges. The first 256 tokens are the bytes; the family's own come last."""
    letters = _letters()
    tokens, merges = list(letters), []
    for word in (spelled for plain in WORDS for spelled in (plain, f" {plain}")):
        left, *rest = (letters[byte] for byte in word.encode())
        for right in rest:
            if left + right not in tokens:
                merges.append(f"{left} {right}")
                tokens.append(left + right)
            left += right
    kinds = [NORMAL] * len(tokens) + [UNUSED] * unused
    kinds += [CONTROL] * len(family.control) + [USER_DEFINED] * len(family.parsed)
    return [*tokens, *(f"<unused {number}>" for number in range(unused)), *family.tokens], kinds, merges


def _letters() -> list[str]:
    """Return GPT-2's letter for each byte: those that print stand for themselves, the others lie from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _shape_members(shape: Shape, tokens: int) -> list[tuple[str, int, Any]]:
    return [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, "tiny-random"),
        ("llama.context_length", UINT32, CONTEXT_TOKENS),
        ("llama.embedding_length", UINT32, shape.hidden),
        ("llama.block_count", UINT32, shape.layers),
        ("llama.feed_forward_length", UINT32, shape.feed_forward),
        ("llama.attention.head_count", UINT32, shape.heads),
        ("llama.attention.head_count_kv", UINT32, shape.heads),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        ("llama.rope.dimension_count", UINT32, shape.hidden // shape.heads),
        ("llama.vocab_size", UINT32, tokens),
        ("general.file_type", UINT32, 0),
    ]


def _tokenizer_members(
    family: Family, tokens: Sequence[str], kinds: Sequence[int], merges: Sequence[str]
) -> list[tuple[str, int, Any]]:
    return [
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "gpt-2"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, (INT32, kinds)),
        ("tokenizer.ggml.merges", ARRAY, (STRING, merges)),
        ("tokenizer.ggml.bos_token_id", UINT32, tokens.index(family.begin)),
        ("tokenizer.ggml.eos_token_id", UINT32, tokens.index(family.end)),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
        ("tokenizer.chat_template", STRING, family.template),
    ]


def _biases(tokens: Sequence[str], kinds: Sequence[int], family: Family, shape: Shape) -> list[float]:
    """Return how likely each token is, as a logit."""
    words = kinds.count(NORMAL) - 256
    biases = [-12.0] * 256 + [1.5] * words + [NEVER] * (len(tokens) - 256 - words)
    biases[32:127] = [0.0] * 95
    biases[ord(" ")] = biases[ord('"')] = 2.0
    biases[tokens.index(family.end)] = shape.end_bias
    return biases


class _Tensor(NamedTuple):
    """`spread` 0: all ones. `first`: its first column, where that is not random."""

    name: str
    rows: int
    columns: int
    spread: float = 0.0
    first: Sequence[float] | None = None


def _weights(shape: Shape, biases: Sequence[float]) -> Iterator[_Tensor]:
    hidden, wide, small = shape.hidden, shape.feed_forward, 0.5 / math.sqrt(shape.hidden)
    after_norm = CONSTANT / math.sqrt((CONSTANT**2 + (hidden - 1) * 1.3) / hidden)
    yield _Tensor("token_embd.weight", len(biases), hidden, 1.0, [CONSTANT] * len(biases))
    yield _Tensor("output_norm.weight", 1, hidden)
    yield _Tensor("output.weight", len(biases), hidden, 2 * small, [bias / after_norm for bias in biases])
    for layer in (f"blk.{number}" for number in range(shape.layers)):
        for norm in ("attn_norm", "ffn_norm"):
            yield _Tensor(f"{layer}.{norm}.weight", 1, hidden)
        for square in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield _Tensor(f"{layer}.{square}.weight", hidden, hidden, small)
        for up in ("ffn_gate", "ffn_up"):
            yield _Tensor(f"{layer}.{up}.weight", wide, hidden, small)
        yield _Tensor(f"{layer}.ffn_down.weight", hidden, wide, small)


def _write_weights(file: BinaryIO, weights: Sequence[_Tensor]) -> None:
    """Write the table of tensors, then their 32-bit floats, each at a multiple of the alignment."""
    at_bytes = 0
    for one in weights:
        sizes = (one.columns,) if one.rows == 1 else (one.columns, one.rows)
        file.write(_text(one.name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, 0, at_bytes))
        at_bytes += _padded(4 * one.rows * one.columns)
    draw = random.Random(7)
    for one in weights:
        file.seek(_padded(file.tell()))
        file.write(_floats(one, draw).tobytes())


def _floats(one: _Tensor, draw: random.Random) -> "array[float]":
    size = one.rows * one.columns
    block = array("f", (draw.gauss(0.0, one.spread) if one.spread else 1.0 for _ in range(min(size, BLOCK))))
    values = (block * (size // len(block) + 1))[:size]
    if one.first is not None:
        values[:: one.columns] = array("f", one.first)
    if one.name.endswith(("attn_output.weight", "ffn_down.weight")):
        values[: one.columns] = array("f", [0.0] * one.columns)  # nothing writes to dimension 0
    return values


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _text(value)
    if kind == ARRAY:
        inner, values = value
        return struct.pack("<IQ", inner, len(values)) + b"".join(_value(inner, one) for one in values)
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}[kind], value)

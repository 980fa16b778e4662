"""One answer out of bytes: however they are cut, the same; whatever they are, no answer that is not there."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.llm.lean.answer import (
    HEAD_MAX_BYTES,
    HEADER_MAX_BYTES,
    HEADERS_MAX,
    Answer,
    AnswerReader,
    Broken,
    BrokeOff,
    Headers,
    NotHttp,
    Surplus,
    TooLarge,
)

BODY_MAX_BYTES = 1_000
OK = b"HTTP/1.1 200 OK\r\n"
TWO = OK + b"Content-Length: 2\r\n\r\n{}"

Whole = tuple[int, dict[str, str], bytes]

VALID: dict[str, tuple[bytes, Whole, bool]] = {
    "length": (
        OK + b'Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}',
        (200, {"content-type": "application/json", "content-length": "8"}, b'{"a": 1}'),
        True,
    ),
    "line end at the end": (OK + b"content-length: 4\r\n\r\n{}\r\n", (200, {"content-length": "4"}, b"{}\r\n"), True),
    "line ends alone": (OK + b"content-length: 4\r\n\r\n\r\n\r\n", (200, {"content-length": "4"}, b"\r\n\r\n"), True),
    "chunks": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0a;ext=1\r\n0123456789\r\n0\r\n\r\n",
        (200, {"transfer-encoding": "chunked"}, b"{0123456789"),
        True,
    ),
    "trailers": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Request-Id: z\r\nContent-Type: b\r\n\r\n",
        (200, {"transfer-encoding": "chunked"}, b"{}"),
        True,
    ),
    "empty": (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", (503, {"content-length": "0"}, b""), True),
    "no content": (b"HTTP/1.1 204 No\r\n\r\n", (204, {}, b""), True),
    "not modified": (b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", (304, {"content-length": "9"}, b""), True),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + TWO,
        (200, {"content-length": "2"}, b"{}"),
        True,
    ),
    "twice the same header": (
        OK + b"X: 1\r\nX: 2\r\nContent-Length: 0\r\n\r\n",
        (200, {"x": "1", "content-length": "0"}, b""),
        True,
    ),
    "empty header": (OK + b"X:\r\nContent-Length: 0\r\n\r\n", (200, {"x": "", "content-length": "0"}, b""), True),
    "close": (
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
        (200, {"connection": "close", "content-length": "2"}, b"{}"),
        False,
    ),
    "old": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", (200, {"content-length": "2"}, b"{}"), False),
}

REFUSED: dict[str, bytes] = {
    "no HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    "a request": b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\n{}",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "negative length": OK + b"Content-Length: -1\r\n\r\n{}",
    "length with a sign": OK + b"Content-Length: +2\r\n\r\n{}",
    "length past all numbers": OK + b"Content-Length: 99999999999999999999\r\n\r\n{}",
    "another coding": OK + b"Transfer-Encoding: gzip\r\n\r\n{}",
    "two codings": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "nearly chunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a chunk's size": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than said": OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "folded header": OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "space before the colon": OK + b"Content-Length : 2\r\n\r\n{}",
    "zero byte": OK + b"X\x00: a\r\nContent-Length: 2\r\n\r\n{}",
    "line feeds alone": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "another protocol": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + TWO,
    "another protocol unnamed": b"HTTP/1.1 101 Switching\r\n\r\n" + TWO,
    "status below all": b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\n{}",
}


def read(pieces: Iterable[bytes], reader: AnswerReader | None = None) -> tuple[Answer | None, AnswerReader]:
    """Feed all pieces; return what the last one gave."""
    reader, answer = reader or AnswerReader(BODY_MAX_BYTES), None
    for piece in pieces:
        assert answer is None, "whole before its last byte"
        answer = reader.feed(piece) if piece else None
    return answer, reader


def plain(answer: Answer | None) -> Whole | None:
    """Return it with its headers as a dict."""
    return None if answer is None else (answer[0], dict(answer[1]), answer[2])


@pytest.mark.parametrize("name", VALID)
def test_cut_anywhere_it_is_the_same_answer(name: str) -> None:
    """In one piece, in two at every place, and byte by byte; and it is whole with its last byte, not before."""
    raw, whole, keeps = VALID[name]
    ways = [[raw], [raw[at : at + 1] for at in range(len(raw))], *([raw[:at], raw[at:]] for at in range(1, len(raw)))]
    for way in ways:
        answer, reader = read(way)
        assert plain(answer) == whole, way
        assert (reader.keeps, reader.begun, reader.answers) == (keeps, False, 1), way


@given(st.lists(st.tuples(st.sampled_from(sorted(n for n in VALID if VALID[n][2])), st.data()), max_size=4))
def test_answers_one_after_the_other_do_not_touch_each_other(course: list[tuple[str, st.DataObject]]) -> None:
    """On one connection, each cut in any number of places, each is what it would be alone."""
    reader = AnswerReader(BODY_MAX_BYTES)
    for number, (name, data) in enumerate(course, 1):
        raw, whole, _ = VALID[name]
        cuts = sorted({0, len(raw), *data.draw(st.lists(st.integers(1, len(raw) - 1), max_size=8))})
        answer, _ = read((raw[a:b] for a, b in pairwise(cuts)), reader)
        assert plain(answer) == whole
        assert reader.answers == number


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_readers_could_read_differently_is_refused(name: str) -> None:
    """Wherever it is cut, and byte by byte: no answer comes of it."""
    raw = REFUSED[name]
    ways = [[raw], [raw[at : at + 1] for at in range(len(raw))], *([raw[:at], raw[at:]] for at in range(1, len(raw)))]
    for way in ways:
        with pytest.raises(NotHttp):
            read(way)


@pytest.mark.parametrize("more", [b"\r\n", b"\n", b"x", b"H", b"HTTP/1.1 2", TWO, b"{}", b"\x00"])
@pytest.mark.parametrize("name", [name for name in VALID if VALID[name][2]])
def test_bytes_too_many_end_the_connection(name: str, more: bytes) -> None:
    """I14: the first answer of a connection can only be ours, a later one could be any call's."""
    raw, whole, _ = VALID[name]
    answer, reader = read([raw + more])
    assert (plain(answer), reader.keeps) == (whole, False)
    _, reader = read([TWO])
    assert reader.keeps
    with pytest.raises(Surplus):
        reader.feed(raw + more)


def endless(head: bytes, piece: bytes) -> Iterable[bytes]:
    """Yield a head, and then the same for ever, or nearly."""
    yield head
    for _ in range(1 + 4 * HEAD_MAX_BYTES // len(piece)):
        yield piece


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(b"HTTP/1.1 200 ", b"O" * 50, id="reason"),
        pytest.param(OK, b"X: 1\r\n", id="headers"),
        pytest.param(OK + b"X: ", b"1" * 50, id="header"),
        pytest.param(OK, b"X" * 50, id="header name"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="interim answers"),
        pytest.param(b"", b"\r\n", id="line ends"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 50, id="chunk extension"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: 1\r\n", id="trailers"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"1" * 50, id="trailer"),
    ],
)
def test_what_never_becomes_a_body_has_an_end(head: bytes, piece: bytes) -> None:
    """Nothing but the body may be long, and that is capped as well."""
    with pytest.raises(NotHttp):
        read(endless(head, piece))


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        (b"X: " + b"a" * (HEADER_MAX_BYTES - 1), True),
        (b"X: " + b"a" * HEADER_MAX_BYTES, False),
        (b"\r\n".join([b"X: 1"] * (HEADERS_MAX - 1)), True),
        (b"\r\n".join([b"X: 1"] * HEADERS_MAX), False),
        (b"\r\n".join([b"X: " + b"a" * 8_000] * 8), True),
        (b"\r\n".join([b"X: " + b"a" * 8_000] * 9), False),
    ],
)
def test_headers_have_limits_in_one_piece_as_well(headers: bytes, *, fits: bool) -> None:
    """One header, all of them, and how many."""
    raw = OK + headers + b"\r\nContent-Length: 2\r\n\r\n{}"
    if fits:
        assert read([raw])[0] is not None
    else:
        with pytest.raises(NotHttp):
            read([raw])


@pytest.mark.parametrize("piece_bytes", [1, 7, BODY_MAX_BYTES])
@pytest.mark.parametrize("way", ["length", "chunks", "end"])
def test_the_body_has_a_limit(way: str, piece_bytes: int) -> None:
    """Up to the limit it is an answer, one byte more is refused."""

    def pieces(size_bytes: int) -> list[bytes]:
        parts = [b"a" * min(piece_bytes, size_bytes - at) for at in range(0, size_bytes, piece_bytes)]
        if way == "length":
            return [OK + b"Content-Length: %d\r\n\r\n" % size_bytes, *parts]
        if way == "end":
            return [OK + b"\r\n", *parts]
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
        return [OK + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"]

    answer, reader = read(pieces(BODY_MAX_BYTES))
    assert (answer or reader.end())[2] == b"a" * BODY_MAX_BYTES
    with pytest.raises(TooLarge):
        read(pieces(BODY_MAX_BYTES + 1))


@pytest.mark.parametrize("head", [b"Content-Length: 200000", b"Transfer-Encoding: chunked"])
def test_only_what_is_no_body_has_the_heads_limit(head: bytes) -> None:
    """A long answer in many pieces passes, with a length and in chunks."""
    piece = b"a" * 1_000
    chunk, end = (b"3e8\r\n%b\r\n" % piece, [b"0\r\n\r\n"]) if b"chunked" in head else (piece, [])
    answer, _ = read([OK, head, b"\r\n\r\n", *[chunk] * 200, *end], AnswerReader(1 << 20))
    assert answer is not None
    assert answer[2] == piece * 200


def test_the_end_is_an_answers_end_only_where_nothing_else_is() -> None:
    """Without length and chunks what came is the body; anything else has broken off, wherever it was cut."""
    raw = OK + b"Content-Type: a\r\n\r\n"
    for body in (b"", b"{", b"{}\r\n"):
        answer, reader = read([raw + body])
        assert answer is None
        assert plain(reader.end()) == (200, {"content-type": "a"}, body)
        assert not reader.keeps
    for name, (whole, _, _) in VALID.items():
        for at in range(1, len(whole)):
            _, reader = read([whole[:at]])
            with pytest.raises(BrokeOff):
                reader.end()
            assert reader.begun, name


def test_headers_are_found_in_any_case() -> None:
    """And what is not there is not there."""
    headers = Headers({b"content-type": b"a\xff", b"x": b""})
    assert headers["Content-TYPE"] == headers.get("content-type") == "a\xff"
    assert "Age" not in headers
    assert headers.get("Age", "none") == "none"
    assert (len(headers), list(headers), "X" in headers) == (2, ["content-type", "x"], True)


@given(st.binary(max_size=300), st.integers(0, 300), st.sampled_from([b"", OK, TWO[:-2], VALID["chunks"][0][:40]]))
def test_any_bytes_give_an_answer_or_an_end(junk: bytes, cut: int, head: bytes) -> None:
    """Nothing else is ever raised, however the bytes are cut; and cut or not, the verdict is the same."""
    raw = head + junk
    verdicts = [verdict([raw]), verdict([raw[:cut], raw[cut:]])]
    assert verdicts[0] == verdicts[1]


def verdict(pieces: list[bytes]) -> object:
    """Return what becomes of these bytes, up to the first answer."""
    reader = AnswerReader(BODY_MAX_BYTES)
    try:
        for piece in pieces:
            if piece and (answer := reader.feed(piece)) is not None:
                return plain(answer)
        return plain(reader.end())
    except Broken as exc:
        return type(exc)

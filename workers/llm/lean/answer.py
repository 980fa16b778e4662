"""One HTTP answer out of the bytes of a connection: what is refused, and when the connection may not be used again.

llhttp reads, with all its leniencies off: Content-Length beside Transfer-Encoding, a second Content-Length, folded
headers and bare line feeds are refused (RFC 9112, sections 5, 6 and 11.2).
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import httptools

HEAD_MAX_BYTES = 65_536
"""Of all that is no body: head, interim answers, what stands between two chunks, trailers."""

HEADER_MAX_BYTES = 8_190
"""Of one header, as aiohttp and Apache's LimitRequestFieldSize have it."""

HEADERS_MAX = 128

_LINE_END = b"\r\n"
_OK, _SWITCHING, _CONTINUE = 200, 101, 100


class Broken(Exception):
    """No answer can come of this connection any more."""


class NotHttp(Broken):
    """What came is no HTTP/1.1 answer, or one that two readers could read differently."""


class TooLarge(Broken):
    """The body is larger than allowed."""


class BrokeOff(Broken):
    """The connection ended inside the answer."""


class Surplus(Broken):
    """More than one answer came on a connection that was used before: either could belong to the call before."""


class Headers(Mapping[str, str]):
    """Names are looked up in any case; of a name that came twice, the first."""

    __slots__ = ("_raw",)

    def __init__(self, raw: dict[bytes, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return self._raw[_lower(name)].decode("latin-1")

    def get(self, name: str, default: Any = None) -> Any:
        """As Mapping's, which raises and catches a KeyError for what is not there, and most is not."""
        value = self._raw.get(_lower(name))
        return default if value is None else value.decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


@lru_cache(maxsize=64)
def _lower(name: str) -> bytes:
    """The same few names are looked for in every answer."""
    return name.lower().encode("latin-1")


Answer = tuple[int, Headers, bytes]
"""Status, headers and body."""


class AnswerReader:
    """Reads one answer after the other; between two of them no byte is expected.

    `begun`: a byte came since the last answer. `answers`: how many were read. `keeps`: after an answer, whether the
    connection may be asked again.
    """

    __slots__ = (
        "_body_max_bytes",
        "_headers",
        "_headers_bytes",
        "_headers_count",
        "_in_body",
        "_interim",
        "_other_bytes",
        "_parser",
        "_parts",
        "_refusal",
        "_size_bytes",
        "_status",
        "_surplus",
        "_until_end",
        "_whole",
        "answers",
        "begun",
        "keeps",
    )

    def __init__(self, body_max_bytes: int) -> None:
        self._body_max_bytes = body_max_bytes
        self._parser = httptools.HttpResponseParser(self)
        self.answers = 0
        self.keeps = True
        self._refusal: Broken | None = None
        self._status = 0
        self._begin()

    def _begin(self) -> None:
        self.begun = self._whole = self._surplus = self._interim = self._in_body = self._until_end = False
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._headers_bytes = self._headers_count = self._other_bytes = self._size_bytes = 0

    def feed(self, received: bytes) -> Answer | None:
        """Take what was received; return the answer when it is whole.

        Raises:
            NotHttp, TooLarge, Surplus: the connection has to be closed.
        """
        self.begun = True
        self._other_bytes += len(received)
        try:
            if received[-1] in _LINE_END:
                # llhttp skips line ends between answers; whole before the last byte shows that one was too many.
                self._parser.feed_data(received[:-1])
                if not self._whole:
                    self._parser.feed_data(received[-1:])
                else:
                    self._surplus = True
            else:
                self._parser.feed_data(received)
        except httptools.HttpParserError as exc:
            if not self._whole:
                raise (self._refusal or NotHttp()) from exc
            self._surplus = True
        if self._whole:
            return self._taken()
        if self._other_bytes > HEAD_MAX_BYTES:
            raise NotHttp
        return None

    def end(self) -> Answer:
        """Take the end of the connection; return the answer that only this ends (no length, no chunks).

        Raises:
            BrokeOff: there is none.
        """
        if not (self._in_body and self._until_end):
            raise BrokeOff
        self.keeps = False
        return self._taken()

    def _taken(self) -> Answer:
        if self._surplus:
            if self.answers:
                raise Surplus
            self.keeps = False
        self.answers += 1
        parts = self._parts
        answer = (self._status, Headers(self._headers), parts[0] if len(parts) == 1 else b"".join(parts))
        self._begin()
        return answer

    def _refuse(self, refusal: Broken) -> None:
        self._refusal = refusal
        raise refusal  # llhttp stops, and `feed` raises it

    # -- what llhttp calls

    def on_message_begin(self) -> None:
        """Note a second answer."""
        if self._whole:
            self._refuse(Surplus())

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, unless it is a trailer: those come too late to be believed (RFC 9110, 6.5.1)."""
        size_bytes = len(name) + len(value)
        self._headers_bytes += size_bytes
        self._headers_count += 1
        if size_bytes > HEADER_MAX_BYTES or self._headers_bytes > HEAD_MAX_BYTES or self._headers_count > HEADERS_MAX:
            self._refuse(NotHttp())
        if not self._in_body:
            self._headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        """Note how the body will end; 1xx is no answer yet."""
        self._status = status = self._parser.get_status_code()
        if status < _OK:
            if status == _SWITCHING or status < _CONTINUE:
                self._refuse(NotHttp())
            self._interim = True
            self._headers.clear()
            return
        coding = self._headers.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            self._refuse(NotHttp())
        self._in_body = True
        self._until_end = coding is None and b"content-length" not in self._headers

    def on_body(self, part: bytes) -> None:
        """Keep a piece of the body."""
        self._other_bytes = 0
        self._size_bytes += len(part)
        if self._size_bytes > self._body_max_bytes:
            self._refuse(TooLarge())
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """Note that the answer is whole."""
        if self._interim:
            self._interim = False
            return
        self._whole = True
        self.keeps = self._parser.should_keep_alive()

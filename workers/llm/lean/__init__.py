"""HTTP/1.1 for JSON POST and nothing else, at a quarter of what aiohttp costs, or less: `models.*.http_client: lean`.

No proxies, redirects, cookies, compression or uploads: aiohttp has what is needed of those (`workers.llm.transport`).
From the wire up: `answer` reads one answer, `connection` is one socket, `idle` keeps sockets between calls, `dialing`
opens them, `deadlines` ends what takes too long, `transport` is the seam.
"""

from workers.llm.lean.transport import LeanTransport

__all__ = ["LeanTransport"]

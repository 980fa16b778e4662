"""`penstock` whose commits carry no bitmap: what the bitmap saves is what differs. For tests/bench/kills.py alone."""

from workers.stream import commit_metadata


def nothing(*_: object) -> str:
    """Return the metadata of a worker that does not know this part of the design."""
    return ""


commit_metadata.encode = nothing  # type: ignore[assignment]  # before workers.stream.commits takes the name

from workers.cli import main  # noqa: E402 - only now

main()

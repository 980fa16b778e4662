"""A part of a page that a program writes: what stands between two markers."""


def with_block(text: str, between: str, markers: tuple[str, str]) -> str:
    """Return the text with another block between its markers.

    Raises:
        ValueError: a marker is missing, or there twice.
    """
    begin, end = markers
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the page needs {begin} and {end}, once each")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{between}\n{end}{rest.partition(end)[2]}"

"""One target under atheris, which keeps what reaches new code: `python -m tests.fuzz.guided TARGET [options]`.

Options are libFuzzer's, which ends the process itself. atheris is in no lock of the product: `make fuzz` installs it.
"""

import sys

import atheris

from tests.fuzz.targets import one_input_of


def main() -> None:
    """Instrument the worker while it is imported, then hand over to libFuzzer."""
    target, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["workers", "topics", "tests.fuzz", "yaml", "jinja2"]):
        one_input = one_input_of(target)
    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

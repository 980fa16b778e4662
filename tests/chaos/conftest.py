"""Says in the end what the faults did."""

import pytest

from tests.support.fault_figures import FILE, noted, table


def pytest_configure(config: pytest.Config) -> None:
    """Forget the last run's figures; in the process that prints, before the others start."""
    if not hasattr(config, "workerinput"):
        FILE.unlink(missing_ok=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures of the tests that ran."""
    if not hasattr(config, "workerinput") and (figures := noted()):
        terminalreporter.section("what the faults did")
        terminalreporter.write(table(figures))

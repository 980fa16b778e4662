"""Says in the end what the faults did."""

import pytest

from tests.support.fault_figures import NOTED, table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of the tests that ran."""
    if NOTED:
        terminalreporter.section("what the faults did")
        terminalreporter.write(table(NOTED))

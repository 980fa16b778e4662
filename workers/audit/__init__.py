"""What became of every record, judged from topics and commits alone: the oracle of tests, demo and `penstock audit`."""

from workers.audit.commits import Sample
from workers.audit.oracle import Oracle, judge
from workers.audit.rules import Rules, Span, Topics, named_source
from workers.audit.verdict import End, Tally, Verdict

__all__ = ["End", "Oracle", "Rules", "Sample", "Span", "Tally", "Topics", "Verdict", "judge", "named_source"]

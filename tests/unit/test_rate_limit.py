"""The rate limit of log lines, with a clock of its own."""

from workers.log.rate_limit import MAX_TEMPLATES, OTHERS, RateLimit


class Clock:
    """Stands still until it is moved."""

    now_s = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


def test_a_period_admits_a_burst_and_reports_the_rest_once() -> None:
    """After the burst nothing passes until the period ends; the number left out is reported once."""
    clock = Clock()
    limit = RateLimit(period_s=10, clock=clock)
    template = ("aiokafka", "gone %s")
    assert [limit.admit(template, 2) for _ in range(5)] == [True, True, False, False, False]
    clock.now_s = 9.9
    assert limit.suppressed() == []
    assert not limit.admit(template, 2)
    clock.now_s = 10.0
    assert limit.suppressed() == [(template, 4)]
    assert limit.suppressed() == []
    assert limit.admit(template, 2)


def test_templates_do_not_share_a_burst() -> None:
    """One talkative template silences no other."""
    limit = RateLimit(period_s=10, clock=Clock())
    assert limit.admit(("a", "x"), 1)
    assert not limit.admit(("a", "x"), 1)
    assert limit.admit(("a", "y"), 1)
    assert limit.admit(("b", "x"), 1)


def test_everything_is_reported_on_the_way_out() -> None:
    """At exit the periods that still run are reported as well; a period that suppressed nothing is not."""
    limit = RateLimit(period_s=10, clock=Clock())
    limit.admit(("a", "quiet"), 1)
    limit.admit(("a", "loud"), 1)
    limit.admit(("a", "loud"), 1)
    assert limit.suppressed(everything=True) == [(("a", "loud"), 1)]


def test_templates_without_end_do_not_fill_the_memory() -> None:
    """Beyond a bound all further templates share one count, until periods end."""
    clock = Clock()
    limit = RateLimit(period_s=10, clock=clock)
    admitted = sum(limit.admit(("asyncio", f"text {n}"), 5) for n in range(MAX_TEMPLATES + 100))
    assert admitted == MAX_TEMPLATES + 5
    assert len(limit._periods) == MAX_TEMPLATES + 1
    clock.now_s = 11.0
    assert limit.suppressed() == [(OTHERS, 95)]
    assert not limit._periods

"""What a round's figures do to the limit: the search at the start, the tries after it, and what cuts at once."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.support.goodput_rounds import after, knee, queue, rounds, tally_of
from workers.llm import goodput
from workers.llm.goodput import State
from workers.llm.tally import ENOUGH, NOTHING, Tally


def steady(kept: int, most: int = 1_024) -> State:
    """Return a state whose search is over."""
    return goodput.settled(goodput.begin(most), kept)


def judged(state: State, tally: Tally, index: int, *, full: bool = True) -> tuple[State, goodput.Reason | None]:
    """Return what comes of one round that is judged while the next one ends."""
    return goodput.after_round(state, tally, judged=index, begins=index + 2, full=full)


def test_the_search_doubles_while_goodput_follows() -> None:
    """From four calls on; it ends where the latency of the first has nearly doubled, without a step beyond."""
    state = goodput.begin(1_024)
    limits = [each.limit for each, _ in rounds(state, knee, 24) if each.mode == "start"]
    assert sorted(set(limits)) == [4, 8, 16, 32, 64, 128]
    assert limits == sorted(limits)
    said = [(each.kept, reason) for each, reason in rounds(state, knee, 24) if reason]
    assert said == [*((n, "doubled") for n in (8, 16, 32, 64, 128)), (128, "settled")]


def test_where_more_brings_nothing_the_search_halves() -> None:
    """A server that works on one call at a time is found: eight calls are no better than four, nor four than one."""
    said = [(each.kept, reason) for each, reason in rounds(goodput.begin(1_024), queue(1), 24) if reason]
    assert said == [(8, "doubled"), (2, "halved"), (1, "halved"), (1, "settled")]


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_small_server_gets_as_many_calls_as_it_works_on(slots: int) -> None:
    """No more than that: each call more would wait for a whole latency."""
    assert after(goodput.begin(1_024), queue(slots)).kept == slots


def test_the_search_takes_the_better_of_the_last_two() -> None:
    """A doubling that made goodput fall is taken back."""
    state = after(goodput.begin(1_024), lambda calls: 1.0 if calls <= 16 else calls / 8, 24)
    assert (state.kept, state.mode) == (16, "steady")


def test_a_server_that_stands_still_for_a_round_ends_no_search() -> None:
    """A limit that would end it is measured twice, and the better of both counts: a kernel is compiled once."""
    state, _ = judged(goodput.begin(1_024), tally_of(4, 0.3), 0)
    state, reason = judged(state, tally_of(8, 1.2), 2)
    assert (state.limit, reason) == (8, None)
    assert judged(state, tally_of(8, 0.32), 3)[0].limit == 16
    state, reason = judged(state, tally_of(8, 1.2), 3)
    assert (state.kept, reason) == (2, "halved")


@pytest.mark.parametrize(("first_s", "second_s"), [(0.5, 1.2), (1.2, 0.5)])
def test_of_two_measures_that_would_end_the_search_the_better_one_counts(first_s: float, second_s: float) -> None:
    """Whichever it was: eight calls that brought a fifth more answers are kept, though once the server stood still."""
    state, _ = judged(goodput.begin(1_024), tally_of(4, 0.3), 0)
    state, reason = judged(state, tally_of(8, first_s), 2)
    assert (state.limit, reason) == (8, None)
    state, reason = judged(state, tally_of(8, second_s), 3)
    assert (state.kept, reason) == (8, "settled")


@pytest.mark.parametrize(
    ("pairs", "kept"),
    [([1.0], 75), ([1.15], 75), ([1.2], 64), ([1.0, 1.5, 1.0], 64), ([1.2, *[1.0] * 8], 75)],
)
def test_what_differs_between_rounds_of_one_limit_decides_nothing(pairs: list[float], kept: int) -> None:
    """All calls of a round may be slow together: that they agree with each other makes a gain no clearer.

    By how much the second round of each pair was slower is remembered, and slowly forgotten.
    """
    state = steady(64)
    for apart in pairs:
        state = replace(state, base=NOTHING)
        state, _ = judged(state, tally_of(64, 0.3), 0)
        state, _ = judged(state, tally_of(64, 0.3 * apart), 1)
    state, _ = judged(replace(state, limit=75), tally_of(75, 0.3 * math.sqrt(pairs[-1])), goodput.TRIED)
    assert state.kept == kept


def test_how_far_rounds_are_apart_is_seen_in_pairs_alone() -> None:
    """Rounds of another length begin anywhere, and a third one may follow without a try: a sum varies less than one."""
    state, _ = judged(steady(64), tally_of(64, 0.3), 0)
    state, _ = judged(state, tally_of(64, 0.36), 1)
    again, _ = judged(state, tally_of(64, 0.6), goodput.ROUNDS)
    assert again.base.rounds == 3
    assert again.moves == state.moves == pytest.approx(math.log(1.2) ** 2 / 2)


def test_a_round_without_an_answer_is_half_of_no_pair() -> None:
    """It has no goodput whose logarithm could be compared; neither before another round nor after one."""
    none = tally_of(64, 0.3, answers=0)
    for first, second in ((none, tally_of(64, 0.3)), (tally_of(64, 0.3), none)):
        state, _ = judged(steady(64), first, 0)
        state, _ = judged(state, second, 1)
        assert (state.base.rounds, state.moves) == (2, None)


def test_a_search_ends_at_the_most_there_may_be() -> None:
    """`auto_max` bounds it, below the first limit too."""
    assert after(goodput.begin(50), lambda _: 1.0).kept == 50
    assert after(goodput.begin(3), lambda _: 1.0).kept == 3
    assert after(goodput.begin(1), lambda _: 1.0).kept == 1


def test_few_calls_decide_nothing() -> None:
    """They are added up until there are enough."""
    state = goodput.begin(1_024)
    few = tally_of(4, 0.3, calls=ENOUGH - 1)
    state, reason = judged(state, few, 0)
    assert (state.limit, reason) == (4, None)
    state, reason = judged(state, few, 1)
    assert (state.limit, reason) == (8, "doubled")


def test_calls_without_an_answer_decide_nothing() -> None:
    """A server that fails every call says nothing of how many it could do."""
    state, reason = judged(goodput.begin(1_024), tally_of(4, 0.3, answers=0), 0)
    assert (state.kept, state.limit, reason) == (4, 4, None)
    state, reason = judged(state, tally_of(4, 0.3), 1)
    assert reason == "doubled"


def test_what_ended_under_another_limit_does_not_count() -> None:
    """The round in which the limit was doubled is judged with the calls of the round before it: they say nothing."""
    state, _ = judged(goodput.begin(1_024), tally_of(4, 0.3), 0)
    again, reason = judged(state, tally_of(4, 0.3), 1)
    assert (again, reason) == (state, None)


@pytest.mark.parametrize("start", [40, 80, 128, 200, 400])
def test_from_anywhere_it_comes_to_the_knee(start: int) -> None:
    """Up while goodput follows, down while it does not fall."""
    assert after(steady(start), knee, 800).kept == pytest.approx(128, rel=0.1)


def test_a_flat_top_is_left_downwards() -> None:
    """Between limits with the same goodput the smaller one is better: the rest is latency."""
    assert after(steady(300), queue(100), 2_000).kept == pytest.approx(100, rel=0.12)


def test_an_h200_with_vllm_is_followed_up_to_where_its_goodput_ends() -> None:
    """Measured: goodput still rises by a sixth from 128 to 256 calls, though latency more than doubles."""
    at = {16: 145, 64: 255, 128: 287, 256: 335, 512: 328, 1_024: 297}

    def latency_s(calls: int) -> float:
        left = max(point for point in at if point <= max(16, calls))
        right = min((point for point in at if point > left), default=left)
        share = math.log(max(16, calls) / left) / math.log(right / left) if right > left else 0.0
        return calls / (at[left] * (at[right] / at[left]) ** share) if calls >= 16 else 16 / 145

    assert after(goodput.begin(1_024), latency_s, 600).kept == pytest.approx(256, rel=0.12)


@pytest.mark.parametrize(("few", "more", "gain"), [(4, 5, 0.052), (16, 20, 0.026), (64, 75, 0.018), (256, 288, 0.017)])
def test_more_calls_must_bring_a_share_of_more_answers(few: int, more: int, gain: float) -> None:
    """A quarter of what they are with four calls, an eighth with 16, a tenth with 64, a seventh with 256."""
    now = tally_of(few, 1.0).utility
    assert tally_of(more, more / few / math.exp(gain + 0.002)).utility > now
    assert tally_of(more, more / few / math.exp(gain - 0.002)).utility < now


def test_one_round_in_four_tries_another_limit() -> None:
    """More in one group of four, less in the next, and what is kept in between: everybody in the same rounds."""
    limits = [goodput.after_round(steady(128), NOTHING, judged=0, begins=n, full=True)[0].limit for n in range(8)]
    step = goodput.step(128)
    assert limits == [128, 128, 128 + step, 128, 128, 128, 128 - step, 128]


def test_a_step_is_a_smaller_share_of_many() -> None:
    """A quarter of sixteen, a sixth of a hundred and twenty-eight; one at the least."""
    assert [goodput.step(n) for n in (1, 4, 16, 128, 256)] == [1, 1, 4, 19, 32]


def tried(state: State, base: Tally, other: Tally, group: int) -> tuple[State, goodput.Reason | None]:
    """Return what comes of one try: two rounds as it was, and the other limit."""
    for index, tally in enumerate([base, base, other]):
        state, reason = judged(state, tally, group * goodput.ROUNDS + index)
    return state, reason


def noisy(limit: int, latency_s: float, spread: float, calls: int = 100) -> Tally:
    """Return what calls come to whose latency has this relative standard deviation."""
    one = tally_of(limit, latency_s, calls)
    return replace(one, squares_s2=one.squares_s2 * (1 + spread**2))


def test_a_better_limit_is_kept_and_the_next_step_up_is_twice_as_long() -> None:
    """What follows is clearer with a longer step; one that brought nothing makes it short again."""
    state, reason = tried(steady(64), tally_of(64, 1.0), tally_of(75, 1.0), 0)
    assert (state.kept, reason, state.stride) == (75, "raised", 2)
    longer = 75 + 2 * goodput.step(75)
    assert goodput.after_round(state, NOTHING, judged=3, begins=10, full=True)[0].limit == longer
    state, reason = tried(state, tally_of(75, 1.0), tally_of(longer, 2.0), 2)
    assert (state.kept, reason, state.stride) == (75, None, 1)


def test_less_is_kept_when_goodput_hardly_falls() -> None:
    """Down is judged in the other half of the rounds; the step up is a short one after it."""
    state, reason = tried(replace(steady(64), stride=2), tally_of(64, 1.0), tally_of(53, 53 / 64), 1)
    assert (state.kept, reason, state.stride) == (53, "lowered", 1)
    state, reason = tried(steady(64), tally_of(64, 1.0), tally_of(53, 1.0), 1)
    assert (state.kept, reason) == (64, None)


def test_latencies_that_vary_take_several_tries() -> None:
    """A difference within one and a half standard errors decides nothing; what is tried again adds up."""
    base, other = noisy(64, 1.0, 0.6), noisy(75, 1.08, 0.6)
    state, groups = steady(64), 0
    while state.kept == 64:
        state, _ = tried(state, base, other, groups)
        groups += 2
    assert 2 < groups / 2 <= goodput.TRIES


def test_after_many_tries_the_less_clear_result_decides() -> None:
    """Both ways: nothing is tried for ever with what was measured long ago."""
    for latency_s, kept in ((1.135, 75), (1.16, 64)):
        state = steady(64)
        for group in range(goodput.TRIES):
            before = state
            state, _ = tried(state, noisy(64, 1.0, 3.0), noisy(75, latency_s, 3.0), 2 * group)
        assert state.kept == kept
        assert before.kept == 64
        assert before.up.tried.rounds == goodput.TRIES - 1
        assert state.up == goodput.UNTRIED


def test_a_try_is_compared_with_the_rounds_before_it_alone() -> None:
    """Others moved meanwhile: what the limit came to before an earlier try does not count for this one."""
    state, _ = tried(steady(64), noisy(64, 1.0, 3.0), noisy(75, 1.0, 3.0), 0)
    state, _ = judged(state, tally_of(64, 9.0), 3)  # after a try: what began then saw the end of it
    assert state.base == NOTHING
    state, _ = tried(state, noisy(64, 2.0, 3.0), noisy(75, 2.0, 3.0), 2)
    assert (state.up.base.lasted_s, state.up.tried.lasted_s) == (600.0, 300.0)


def test_a_try_with_nothing_before_it_is_no_try() -> None:
    """There is nothing to compare it with: no backlog, or another limit, in the rounds before."""
    state, reason = judged(steady(64), tally_of(75, 0.1), goodput.TRIED)
    assert (state.kept, state.up, reason) == (64, goodput.UNTRIED, None)


def test_a_round_with_another_limit_is_no_try() -> None:
    """The limit moved for another reason: nothing is compared, and what stood before it is dropped."""
    state, _ = judged(steady(64), tally_of(64, 1.0), 0)
    state, reason = judged(state, tally_of(70, 1.0), goodput.TRIED)
    assert (state.kept, state.base, state.up, reason) == (64, NOTHING, goodput.UNTRIED, None)


def test_tries_of_another_limit_begin_anew() -> None:
    """A limit that was refused meanwhile shortens the step: its results are not those of the longer one."""
    tries = goodput.UNTRIED.and_then(tally_of(75, 1.0), tally_of(64, 1.0))
    assert tries.and_then(tally_of(75, 1.0), tally_of(64, 1.0)).tried.calls == 200
    other = tries.and_then(tally_of(70, 1.0), tally_of(64, 2.0))
    assert (other.tried.limit, other.tried.calls, other.base.calls) == (70, 100, 100)


def test_without_a_backlog_nothing_is_learnt_and_nothing_tried() -> None:
    """Slots that were not in use say nothing; what had been measured is dropped."""
    state, _ = judged(steady(64), tally_of(64, 1.0), 0)
    state = replace(state, up=goodput.UNTRIED.and_then(tally_of(75, 1.0), tally_of(64, 1.0)))
    idle, reason = judged(state, tally_of(64, 0.1), 0, full=False)
    assert (idle.limit, idle.base, idle.up, reason) == (64, NOTHING, goodput.UNTRIED, None)
    state, reason = judged(goodput.begin(64), tally_of(4, 0.3), 0, full=False)
    assert (state.limit, state.base, reason) == (4, NOTHING, None)


def test_what_is_refused_is_asked_for_less_and_barred_for_a_while() -> None:
    """An eighth less at once; the limit that was refused is not tried again for 512 rounds, then it may be."""
    state = goodput.refused(steady(64), 64)
    assert (state.kept, state.limit, state.barred) == (56, 56, 64)
    climbing = after(state, lambda _: 1.0, goodput.BARRED_ROUNDS - 1)
    assert climbing.kept == 63
    assert after(climbing, lambda _: 1.0, 40, goodput.BARRED_ROUNDS - 1).kept > 64


def test_refusals_end_the_search_and_one_call_always_remains() -> None:
    """However small what was refused."""
    state = goodput.refused(goodput.begin(1_024), 4)
    assert (state.mode, state.kept, state.barred) == ("steady", 3, 4)
    assert [(one := goodput.refused(steady(1), 1)).kept, one.barred] == [1, 2]
    lower = goodput.refused(goodput.refused(steady(64), 64), 40)
    assert (lower.kept, lower.barred) == (35, 40)
    assert goodput.refused(goodput.refused(steady(64), 40), 64).barred == 40


def test_an_outage_gives_back_what_was_known() -> None:
    """Limit, search and all; what was being measured is dropped."""
    before = replace(steady(64), limit=75, base=tally_of(64, 1.0))
    assert goodput.restored(before) == steady(64)
    assert goodput.restored(goodput.begin(1_024)) == goodput.begin(1_024)


@pytest.mark.parametrize(
    ("timeouts", "calls", "too_many"), [(1, 1, False), (2, 2, True), (2, 20, True), (2, 21, False), (9, 100, False)]
)
def test_two_timeouts_and_a_tenth_of_the_calls_cut(timeouts: int, calls: int, *, too_many: bool) -> None:
    """One call that hangs says nothing of the load."""
    assert goodput.too_many(timeouts, calls) is too_many


def test_the_users_ceiling_lowers_the_limit() -> None:
    """More than a twentieth of the calls took longer: a step down, whatever goodput says; exactly that many may."""
    state, reason = judged(steady(64), tally_of(64, 1.0, over=6), 1)
    assert (state.kept, state.limit, reason) == (64 - goodput.step(64), 64 - goodput.step(64), "latency_ceiling")
    state, reason = judged(steady(64), tally_of(64, 1.0, over=5), 0)
    assert (state.kept, reason) == (64, None)
    few = replace(tally_of(64, 1.0, calls=ENOUGH - 1), over=10)
    assert judged(steady(64), few, 0)[0].kept == 64


def test_the_users_ceiling_holds_for_few_calls_too() -> None:
    """Where two rounds have too few calls to tell, those before several tries do."""
    state, reason = steady(4), None
    for group in range(4):
        assert (state.kept, reason) == (4, None)
        state, reason = tried(state, tally_of(4, 9.0, 2, over=1), tally_of(5, 9.0, 1), 2 * group)
    assert (state.kept, reason) == (3, "latency_ceiling")


def test_a_try_above_the_users_ceiling_is_never_kept() -> None:
    """However much goodput it brings."""
    state, reason = tried(steady(64), tally_of(64, 1.0), tally_of(75, 1.0, over=6), 0)
    assert (state.kept, reason, state.up) == (64, None, goodput.UNTRIED)


def test_a_search_above_the_users_ceiling_takes_half() -> None:
    """And is over."""
    state, reason = judged(goodput.begin(1_024), tally_of(4, 1.0, over=6), 0)
    assert (state.kept, state.limit, state.mode, reason) == (2, 2, "steady", "latency_ceiling")


@pytest.mark.parametrize(
    ("mean_s", "now_s", "period_s"),
    [
        (0.0, 0.0, 0.5),
        (0.1, 0.0, 0.5),
        (0.3, 0.0, 1.0),
        (0.4, 0.0, 1.0),
        (0.6, 0.0, 2.0),
        (60.0, 0.0, 256.0),
        (0.4, 2.0, 2.0),
        (0.3, 2.0, 2.0),
        (0.27, 2.0, 1.0),
        (0.9, 2.0, 4.0),
        (0.1, 0.5, 0.5),
    ],
)
def test_a_round_is_a_power_of_two_of_two_and_a_half_latencies(mean_s: float, now_s: float, period_s: float) -> None:
    """At least; one that fits stays, even if a shorter one would do."""
    assert goodput.period_s(mean_s, now_s) == period_s


def test_a_search_that_ended_too_early_goes_on_as_it_began() -> None:
    """A server that stood still while it was measured is found all the same: steps double while goodput follows."""
    limits = [each.kept for each, reason in rounds(steady(4), knee, 44) if reason == "raised"]
    assert limits[-1] >= 64
    assert all(after <= 2 * before for before, after in pairwise([4, *limits]))


def test_steps_do_not_double_where_goodput_rises_slowly() -> None:
    """There a limit that is worth it is two steps away at the most: the next may be past the top."""
    strides = [each.stride for each, reason in rounds(steady(64), lambda calls: calls**0.7, 200) if reason == "raised"]
    assert set(strides) == {2}


@pytest.mark.parametrize(("variation", "stride"), [(0.0, 4), (0.4, 2)])
def test_steps_do_not_double_while_it_may_be_chance(variation: float, stride: int) -> None:
    """Enough for the next limit is not enough for twice the step: latencies that vary show rises that are none."""

    def varied(tally: Tally) -> Tally:
        return replace(tally, squares_s2=tally.squares_s2 * (1 + variation))

    before = replace(steady(16), stride=2, limit=24, base=varied(tally_of(16, 0.3)))
    wider = 16 + 2 * goodput.step(16)
    rises = (wider / 16) ** 0.75
    state, reason = judged(before, varied(tally_of(wider, 0.3 * wider / 16 / rises)), goodput.TRIED)
    assert (state.kept, reason, state.stride) == (wider, "raised", stride)

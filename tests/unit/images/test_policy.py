"""Rules by which images go: age, number, and the order when room is wanted."""

from __future__ import annotations

from wherry.images.policy import Candidate, ImageUpkeepPolicy, by_age_and_number, by_space
from wherry.model import digest as digests
from wherry.model import reference

DAY = 24 * 3600 * 10**9


def image(number: int, days: int, *names: str) -> Candidate:
    return Candidate(digests.of(bytes([number])), [reference.parse(n) for n in names], (100 - days) * DAY)


OLD, MIDDLE, NEW = image(1, 30, "app:1"), image(2, 20, "app:2"), image(3, 10, "app:3")
DANGLING = image(4, 5)
ALL = [OLD, MIDDLE, NEW, DANGLING]


def test_age_counts_from_the_last_move_of_a_name() -> None:
    chosen = by_age_and_number(ALL, ImageUpkeepPolicy(age_days=15), set(), 100 * DAY)
    assert chosen == [OLD.target, MIDDLE.target]
    assert by_age_and_number(ALL, ImageUpkeepPolicy(age_days=15), {OLD.target}, 100 * DAY) == [MIDDLE.target]


def test_the_newest_of_each_repository_stay() -> None:
    other = image(5, 90, "other:1", "app:0")
    chosen = by_age_and_number([*ALL, other], ImageUpkeepPolicy(keep=1), set(), 100 * DAY)
    assert chosen == [OLD.target, MIDDLE.target]


def test_for_room_nameless_ones_go_first_and_then_the_oldest() -> None:
    assert by_space(ALL, {MIDDLE.target}) == [DANGLING.target, OLD.target, NEW.target]


def test_no_rule_is_no_policy() -> None:
    assert not ImageUpkeepPolicy()
    assert by_age_and_number(ALL, ImageUpkeepPolicy(), set(), 100 * DAY) == []

"""What asking a model may cost: over an hour, held back before it is spent."""

from kat_otel.config import AnalyzerConfig
from kat_otel.processor.budget import Budget, Spent


def test_tokens_that_may_be_spent_are_held_back_before_they_are():
    budget = Budget(AnalyzerConfig(tokens_per_hour=1_000), lambda: 0.0)
    most = Spent(500, 100)
    assert budget.hold(most)
    assert not budget.hold(most), "two at once could spend 1,200"
    budget.settle(most, Spent(200, 50))
    assert budget.hold(most)


def test_an_hour_later_there_is_room_again():
    now = 0.0
    budget = Budget(AnalyzerConfig(tokens_per_hour=1_000), lambda: now)
    assert budget.hold(Spent(900, 0))
    budget.settle(Spent(900, 0), Spent(900, 0))
    now = 3_599.0
    assert not budget.hold(Spent(101, 0))
    now = 3_600.0
    assert budget.hold(Spent(101, 0))


def test_money_is_counted_by_the_prices_of_a_million_tokens():
    config = AnalyzerConfig(money_per_hour=1.0, price_sent=2.0, price_received=8.0)
    budget = Budget(config, lambda: 0.0)
    assert budget.hold(Spent(100_000, 100_000)), "0.2 and 0.8"
    assert not budget.hold(Spent(1, 0))


def test_without_limits_all_passes():
    budget = Budget(AnalyzerConfig(tokens_per_hour=0), lambda: 0.0)
    assert all(budget.hold(Spent(10**9, 10**9)) for _ in range(3))

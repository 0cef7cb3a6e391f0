import pytest

from chemscale_jax.training import meter


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the meter sees; a test moves them."""
    now = [0.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    return now


def test_rate_and_waiting_of_the_last_steps(clock):
    found = meter.Meter()
    assert found.pace() == (0, 0)
    for _ in range(200):  # many more than are looked back on
        with found.waiting():
            clock[0] += 0.5
        clock[0] += 1.5
        found.add(10)
    assert found.pace() == pytest.approx((5.0, 0.25))
    assert found.pace().line("frames") == "5 frames/s, 25% waiting for input"


def test_input_in_time_is_not_mentioned(clock):
    found = meter.Meter()
    for _ in range(3):
        with found.waiting():
            pass
        clock[0] += 1.0
        found.add(2)
    assert found.pace() == (2.0, 0.0)
    assert found.pace().line("tokens") == "2 tokens/s"

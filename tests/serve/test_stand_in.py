"""Whoever takes the loop over while its own thread is busy is there the next time, too."""

import time

from serve.stand_in import StandIn


def test_turn_that_fails_is_told_and_the_next_is_taken(caplog):
    n_turns = 0

    def turn() -> None:
        nonlocal n_turns
        n_turns += 1
        if n_turns == 1:
            raise RuntimeError("no such event")
        time.sleep(0.001)

    stand_in = StandIn(turn, lambda: None)
    stand_in.start()
    for _ in range(2):
        with stand_in.watching():
            time.sleep(0.2)
        assert not stand_in.has_loop

    assert n_turns > 1
    assert "no such event" in caplog.text

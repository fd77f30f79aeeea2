"""Workers tell each other how many connections they have, and the fewest get the next."""

import os

from serve.shares import AWAY, N_PLACES, Shares


def test_counts_of_one_process_are_seen_by_another():
    shares = Shares()
    assert shares.fewest() == AWAY
    shares.tell(1, 5)
    child = os.fork()
    if not child:
        shares.tell(N_PLACES + 2, 3)
        os._exit(0)
    os.waitpid(child, 0)

    assert shares.fewest() == 3
    shares.leave(N_PLACES + 2)
    assert shares.fewest() == 5

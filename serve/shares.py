"""How many connections each worker has, so that who has fewest takes the next.

The kernel wakes all workers for a connection, and who happens to be first would take all of a
burst. Who has more than another lets it pass for a moment; nobody waits who has fewest. Who has far
more, as after the death of the other, ends one after the other with an answer (Connection: close).
"""

from mmap import mmap

N_PLACES = 64  # of workers; more would share them, and balance less well
AWAY = 2**31 - 1


class Shares:
    """One for all workers of a server, in memory that they have in common if made before a fork."""

    def __init__(self) -> None:
        self._counts = memoryview(mmap(-1, 4 * N_PLACES)).cast("i")
        for place in range(N_PLACES):
            self.leave(place)

    def tell(self, worker: int, n_connections: int) -> None:
        """Say how many a worker has, known by the number of its start, while it takes more."""
        self._counts[worker % N_PLACES] = n_connections

    def leave(self, worker: int) -> None:
        self.tell(worker, AWAY)

    def fewest(self) -> int:
        """Give how many who has fewest has; a large number if nobody takes any."""
        return min(self._counts)

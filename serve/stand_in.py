"""A thread that runs the main loop while the loop's own thread is busy with a request.

To hand a request to another thread and its connection back costs more than most answers do: at each
call that parts with the interpreter's lock, the two threads pass it to and fro. So the thread of
the loop answers small requests itself, and is watched: where one takes longer than PATIENCE_S, the
stand-in runs the loop until the answer is out.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

PATIENCE_S = 0.005
DOZE_S = 0.2  # without requests, after which it sleeps until the next


class StandIn:
    """Takes turns with the thread that makes it, which holds the loop to begin with."""

    def __init__(self, turn: Callable[[], None], wake: Callable[[], None]):
        """Take what runs the loop once, and what ends a turn that waits for events."""
        self._turn, self._wake = turn, wake
        self._loop = threading.Lock()  # held by the thread that runs the loop
        self._loop.acquire()
        self._busy_since_s = 0.0  # 0: the loop's own thread is not busy
        self._alarm = threading.Event()  # set unless the stand-in dozes
        self.has_loop = False

    def start(self) -> None:
        threading.Thread(target=self._watch, name="stand-in", daemon=True).start()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let the calling thread, which runs the loop, be busy; it has the loop again after."""
        self._busy_since_s = time.monotonic()
        if not self._alarm.is_set():
            self._alarm.set()
        self._loop.release()
        try:
            yield
        finally:
            self._busy_since_s = 0.0
            if not self._loop.acquire(blocking=False):
                self._wake()
                self._loop.acquire()

    def _watch(self) -> None:
        seen_s = 0.0
        while True:
            self._alarm.wait()
            time.sleep(PATIENCE_S)
            since_s, now_s = self._busy_since_s, time.monotonic()
            if since_s:
                seen_s = now_s
                if now_s - since_s >= PATIENCE_S:
                    self._take_over(since_s)
            elif now_s - seen_s > DOZE_S:
                self._alarm.clear()
                if self._busy_since_s:  # since just now, and the alarm still looked set
                    self._alarm.set()

    def _take_over(self, since_s: float) -> None:
        if not self._loop.acquire(blocking=False):
            return  # the answer went out just now
        self.has_loop = True
        try:
            while self._busy_since_s == since_s:
                self._turn()
        except Exception:  # the next that takes long needs a stand-in, too
            logger.exception("the loop failed while a request took long")
        finally:
            self.has_loop = False
            self._loop.release()

"""Requests that the main loop answers in one round, whose rows are committed together.

Each request runs in a greenlet. Where it has rows to log it waits, the others of the round come as
far, one transaction takes the rows of all, and each goes on to its answer. Its route sees no more
than a log that takes its time.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from greenlet import getcurrent, greenlet

from contract.predictions.rows import Rows

logger = logging.getLogger(__name__)

Work = Callable[[], Any]


class Round:
    """For the thread that runs the loop, which begins requests and settles what they wait for."""

    def __init__(self, watching: Callable[[], AbstractContextManager]):
        """Take what is entered while a request or a commit keeps the loop from others."""
        self.write: Callable[[list[Rows]], None] | None = None  # commits rows of several appends
        self._watching = watching
        self._idle: list[_Answerer] = []
        self._waiting: list[_Answerer] = []

    def __len__(self) -> int:
        """Count the requests that wait to be settled."""
        return len(self._waiting)

    def begin(self, work: Work, finish: Callable[[Any], None]) -> None:
        """Work until it is done or waits for a commit; what it returns is given to `finish`."""
        each = self._idle.pop() if self._idle else _Answerer()
        each.finish = finish
        self._go_on(each, work)

    def settle(self) -> None:
        """Commit what waits, in one transaction, until all requests are done."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                with self._watching():
                    self.write([each.rows for each in waiting])
            except Exception as error:  # all still get an answer, by what became of their rows
                logger.exception("a commit did not end as it should")
                for each in waiting:
                    if not each.rows.taken:  # else the log has told them
                        each.rows.error = error
            for each in waiting:
                each.rows = None
                self._go_on(each)

    def take(self, rows: Rows) -> bool:
        """Write rows at the end of the round and then return True; False if no request is ours."""
        each = getcurrent()
        if not isinstance(each, _Answerer):
            return False
        each.rows = rows
        each.parent.switch()
        return True

    def _go_on(self, each: "_Answerer", *work: Work) -> None:
        told = None
        try:
            with self._watching():
                told = each.switch(*work)
        finally:  # even if interrupted
            if each.rows is None:
                each.finish(told)
        if each.rows is None:
            self._idle.append(each)
        else:
            self._waiting.append(each)


class _Answerer(greenlet):
    """Works for one request after the other: to make a greenlet costs ten times what it does."""

    rows: Rows | None = None  # for whose commit it waits
    finish: Callable[[Any], None]

    def run(self, work: Work) -> None:
        while True:
            work = self.parent.switch(work())

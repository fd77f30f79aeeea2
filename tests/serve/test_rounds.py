"""Requests of one round share a commit, and each still has its own answer or its own error."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from contract.artifact import Predictions
from contract.predictions.file import LogError
from contract.predictions.log import PredictionLog
from serve.rounds import Round
from serve.worker import Worker

ONE = np.array([1.0])
ABOUT = {"model": "0a1b2c3d4e5f", "source": "api", "request_id": "r", "latency_ms": 1.5}
HALF_A_PAIR = "\ud800"  # which SQLite cannot hold


class Told:
    """What became of each request, by its name, and how many rows each commit had."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.commits: list[int] = []
        self.is_watched = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        assert not self.is_watched
        self.is_watched = True
        try:
            yield
        finally:
            self.is_watched = False


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def answering(log, told) -> Round:
    made = Round(told.watching)

    def write(appends: list) -> None:
        told.commits.append(len(appends))
        log.write(appends)

    made.write, log.hand_over = write, made.take
    return made


def append(log: PredictionLog, features: str = "{}") -> str:
    return log.append([features], Predictions(ONE, ONE, ONE), **ABOUT)[0]


def logged_ids(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [
            row_id for (row_id,) in connection.execute("SELECT id FROM predictions ORDER BY seq")
        ]


@pytest.fixture
def begin(answering, told) -> Callable:
    """Give what begins a request under a name."""

    def begin(name: str, work: Callable[[], object]) -> None:
        def finish(answer: object) -> None:
            assert not told.is_watched  # the loop is ours again
            told.answers[name] = answer

        answering.begin(work, finish)

    return begin


def test_requests_of_a_round_share_a_commit(log, answering, begin, told, path):
    for name in "abc":
        begin(name, lambda: append(log))

    assert (len(answering), told.answers, told.commits) == (3, {}, [])
    answering.settle()

    assert (len(answering), told.commits) == (0, [3])
    assert logged_ids(path) == [told.answers[name] for name in "abc"]


def test_request_that_logs_nothing_is_answered_at_once(answering, begin, told):
    begin("a", lambda: 1)
    answering.settle()

    assert (told.answers, told.commits) == ({"a": 1}, [])


def test_request_that_logs_twice_waits_for_two_commits(log, answering, begin, told, path):
    begin("long", lambda: [append(log), append(log)])
    begin("short", lambda: append(log))
    answering.settle()

    assert told.commits == [2, 1]
    first, second = told.answers["long"]
    assert logged_ids(path) == [first, told.answers["short"], second]


def test_bad_value_of_one_costs_the_others_nothing(log, answering, begin, told, path):
    def try_bad() -> str:
        with pytest.raises(LogError, match="not text or a number"):
            append(log, HALF_A_PAIR)
        return "refused"

    begin("a", lambda: append(log))
    begin("bad", try_bad)
    begin("b", lambda: append(log))
    answering.settle()

    assert told.answers["bad"] == "refused"
    assert logged_ids(path) == [told.answers["a"], told.answers["b"]]
    assert log.is_writable()


def test_log_that_cannot_be_written_is_told_to_each(log, answering, begin, told):
    log.close()

    def try_it() -> str:
        with pytest.raises(LogError, match="closed"):
            append(log)
        return "told"

    begin("a", try_it)
    begin("b", try_it)
    answering.settle()

    assert told.answers == {"a": "told", "b": "told"}


def test_error_after_a_commit_costs_no_answer(log, answering, begin, told, path, caplog):
    def write(appends: list) -> None:
        log.write(appends)
        raise RuntimeError("can't start new thread")

    answering.write = write
    begin("a", lambda: append(log))
    begin("b", lambda: append(log))
    answering.settle()

    assert logged_ids(path) == [told.answers["a"], told.answers["b"]]
    assert "can't start new thread" in caplog.text


def test_error_before_a_commit_is_told_to_each(log, answering, begin, told, path):
    def fail(appends: list) -> None:
        raise RuntimeError("no such luck")

    def try_it() -> str:
        with pytest.raises(LogError, match="no such luck"):
            append(log)
        return "told"

    answering.write = fail
    begin("a", try_it)
    begin("b", try_it)
    answering.settle()

    assert told.answers == {"a": "told", "b": "told"}
    assert not path.exists()


def test_other_threads_are_not_held_up_by_a_round(log, answering, begin, told, path):
    begin("a", lambda: append(log))
    thread = threading.Thread(target=append, args=[log])
    thread.start()
    thread.join(timeout=10)

    assert not thread.is_alive()
    assert len(logged_ids(path)) == 1
    answering.settle()
    assert told.answers["a"] in logged_ids(path)


@pytest.mark.parametrize("logs_before", [False, True])
def test_request_that_is_interrupted_is_finished_and_the_next_goes_on(
    logs_before, log, answering, begin, told
):
    def interrupted() -> None:
        if logs_before:
            append(log)
        raise KeyboardInterrupt

    def run_it() -> None:
        begin("a", interrupted)
        answering.settle()

    with pytest.raises(KeyboardInterrupt):
        run_it()
    begin("b", lambda: append(log))
    answering.settle()

    assert told.answers["a"] is None
    assert told.answers["b"]


def test_route_that_may_take_long_has_a_round_to_itself(log, answering, told):
    worker = SimpleNamespace(
        round=answering, handle=lambda _: append(log), finish=told.answers.__setitem__
    )
    Worker.answer_here(worker, "a", "/predict")
    Worker.answer_here(worker, "b", "/predict")
    assert len(answering) == 2

    Worker.answer_here(worker, "long", "/batch_predict")

    assert (len(answering), told.commits) == (0, [2, 1])
    assert [*told.answers] == ["a", "b", "long"]


def test_answerers_are_used_again(log, answering, begin, told):
    for number in range(5):
        begin(str(number), lambda: append(log))
        answering.settle()

    assert len(answering._idle) == 1
    assert len(told.answers) == 5

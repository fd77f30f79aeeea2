"""Tell of what the monitor found, once each: when it begins, and when it is over.

A cause is a subject with a measure, such as a column whose mean has moved; it begins where it
exceeds the limit that fails, and is over where it exceeds none. Each way (see ops.channels) has its
own memory of what it has told, in <report>.alerts.json: what fails is tried again at the next run.
"""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from contract.monitoring import REPORT, LiveError, Report, Told
from ops.channels import Channel, ChannelError, ChannelSettings, Message, open_channels
from ops.whole_file import write_whole

LIVE_ERROR = "live_error"  # the measure of a cause that the truth has shown
N_NAMED = 3  # subjects in the line that stands for all
WAYS_ON = (
    "Mend where these rows come from; or, if the world has changed, put newer rows into the "
    "training data and run the pipeline: python -m ops.run"
)


class AlertSettings(ChannelSettings, frozen=True):
    """Which ways there are, and the report beside which it is kept what they have told."""

    monitor_report: Path = REPORT


class Cause(BaseModel, frozen=True):
    """Something that is, or was, beyond its limit."""

    subject: str
    measure: str
    since: datetime
    words: str  # of the last report that had it
    over: datetime | None = None
    told: frozenset[str] = frozenset()  # the ways that told of it, and not yet that it is over

    @property
    def key(self) -> tuple[str, str]:
        return self.subject, self.measure


class State(BaseModel, frozen=True):
    """What is known from one run of the monitor to the next."""

    format: Literal[1] = 1
    causes: tuple[Cause, ...] = ()


def alert(report: Report, settings: AlertSettings) -> list[str]:
    """Tell of what has begun or is over since the last report, by all ways that are set.

    Gives sentences of what was done; a way that is blocked is one of them. State is kept beside
    `settings.monitor_report`; where it cannot be kept, nothing is told, or it would be each time.
    """
    channels, path = open_channels(settings), Path(f"{settings.monitor_report}.alerts.json")
    if not channels and not path.exists():
        return []
    try:
        with _alone(path):
            return _alert(report, channels, path)
    except OSError as error:
        return [
            f"WARNING: {path} cannot be written, {error.strerror}, so no alert was sent. Mend it."
        ]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other monitor tells of the same report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _alert(report: Report, channels: Sequence[Channel], path: Path) -> list[str]:
    state, said = _read(path)
    causes = update(state.causes, report)
    _write(path, causes)  # before anything is told
    for channel in channels:
        message = compose(report, causes, channel)
        if message is None:
            continue
        try:
            said.append(channel.send(message))
        except ChannelError as error:
            said.append(f"WARNING: no alert by {channel.name}. {error} Tried again next time.")
            continue
        causes = [_told(cause, channel) for cause in causes]
        _write(path, causes)
    _write(path, _unfinished(causes, channels))
    return said


def update(known: Sequence[Cause], report: Report) -> list[Cause]:
    """Bring causes up to a report: those that begin, go on, and are over.

    What cannot be measured any more, for want of rows or truths, is not over by that.
    """
    causes = {cause.key: cause for cause in known}
    beyond = dict(_beyond(report))
    for key, (words, fails) in beyond.items():
        if key in causes and causes[key].over is None:
            causes[key] = causes[key].model_copy(update={"words": words})
        elif fails:  # anew, also if not all have been told that it was over
            subject, measure = key
            causes[key] = Cause(subject=subject, measure=measure, since=report.made, words=words)
    return [
        cause.model_copy(update={"over": report.made})
        if cause.over is None and cause.key not in beyond and _is_measured(cause, report)
        else cause
        for cause in causes.values()
    ]


def _beyond(report: Report) -> Iterator[tuple[tuple[str, str], tuple[str, bool]]]:
    """Give what exceeds a limit by its key, in words, and whether it is the limit that fails."""
    for found in report.findings:
        yield (found.subject, found.measure), (_in_words(found), found.action == "fail")
    if report.live_error is not None and report.live_error.is_worse:
        error = report.live_error
        yield (error.score, LIVE_ERROR), (_live_in_words(error), True)


def _is_measured(cause: Cause, report: Report) -> bool:
    if cause.measure == LIVE_ERROR:
        return report.live_error is not None
    n_values = {column.name: column.n_values for column in report.columns}
    names = [cause.subject] if cause.subject in n_values else cause.subject.split(" - ")
    return report.status != "too_few" and all(n_values.get(name, 1) for name in names)


def _in_words(found: Told) -> str:
    words = f"{found.measure.replace('_', ' ')} {found.value:.4g}, limit {found.limit:.4g}"
    return _printable(f"{words} ({found.detail})" if found.detail else words)


def _live_in_words(error: LiveError) -> str:
    return (
        f"{error.value:.4g} ({error.low:.4g} to {error.high:.4g} with 95 % confidence) over "
        f"{error.n_rows:,} rows whose truth is known, {error.promised:.4g} was promised"
    )


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def compose(report: Report, causes: Sequence[Cause], channel: Channel) -> Message | None:
    """Put into words what one way has not told yet; None if there is nothing."""
    here = [cause for cause in causes if cause.over is None]
    new = [cause for cause in here if channel.name not in cause.told]
    over = [each for each in causes if each.over is not None and channel.name in each.told]
    over = over if channel.tells_of_clearing else []
    if not new and not over:
        return None
    old = [cause for cause in here if cause not in new]
    parts = {"New": new, "Over": over, "Still so": old}
    lines, marked = [], []
    for title, group in parts.items():
        if group:
            lines += [f"{title}:", *(f"- {_line(cause)}" for cause in group), ""]
            marked += [f"## {title}", "", *(f"- {_code(_line(cause))}" for cause in group), ""]
    subject = _subject(new, over)
    facts = _facts(report)
    return Message(
        subject=subject,
        text="\n".join([report.summary, "", *lines, *facts, *([WAYS_ON] if here else []), ""]),
        markdown="\n".join(
            [f"# {_code(subject)}", "", _code(report.summary), "", *marked, *facts, "", WAYS_ON, ""]
        ),
    )


def _subject(new: Sequence[Cause], over: Sequence[Cause]) -> str:
    parts = [f"Drift of {_names(new)}"] if new else []
    parts += [f"no more drift of {_names(over)}"] if over else []
    told = "; ".join(parts)
    return told[:1].upper() + told[1:]


def _names(causes: Sequence[Cause]) -> str:
    names = list(dict.fromkeys(_printable(cause.subject) for cause in causes))
    more = len(names) - N_NAMED
    return ", ".join(names[:N_NAMED]) + (f" and {more} more" if more > 0 else "")


def _line(cause: Cause) -> str:
    subject, since = _printable(cause.subject), f"{cause.since:%Y-%m-%d %H:%M}"
    if cause.over is None:
        return f"{subject}: {cause.words}; since {since} UTC"
    measure = cause.measure.replace("_", " ")
    return f"{subject}: {measure}; from {since} to {cause.over:%Y-%m-%d %H:%M} UTC"


def _code(text: str) -> str:
    """Quote text for Markdown, where a word from the data could call people or be a link."""
    return f"`{_printable(text).replace('`', chr(39))}`"


def _facts(report: Report) -> list[str]:
    return [
        f"{report.n_rows:,} predictions of {report.log}, beside what model {report.model} was "
        f"trained on; report of {report.made:%Y-%m-%d %H:%M} UTC.",
    ]


def _told(cause: Cause, channel: Channel) -> Cause:
    """Note that this way has told all there is to tell of a cause."""
    told = cause.told | {channel.name} if cause.over is None else cause.told - {channel.name}
    return cause.model_copy(update={"told": told})


def _unfinished(causes: Sequence[Cause], channels: Sequence[Channel]) -> list[Cause]:
    """Forget what is over, once all who told of it have told that, too."""
    tell = {channel.name for channel in channels if channel.tells_of_clearing}
    return [cause for cause in causes if cause.over is None or cause.told & tell]


def _read(path: Path) -> tuple[State, list[str]]:
    """Read what was told; a damaged file is begun anew, and what goes on is told again."""
    try:
        return State.model_validate_json(path.read_bytes()), []
    except FileNotFoundError:
        return State(), []
    except ValidationError:
        return State(), [f"WARNING: {path} is damaged and begun anew; alerts may come again."]


def _write(path: Path, causes: Sequence[Cause]) -> None:
    write_whole(path, State(causes=tuple(causes)).model_dump_json(indent=1) + "\n")

"""What the commands share: their error, their words to people, and the window they are given."""

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta

UNITS = {"d": "days", "h": "hours", "m": "minutes"}


class CommandError(ValueError):
    """A command cannot do what it was told; the message is meant for the user."""


def say(text: str) -> None:
    """Tell what was asked for."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell something beside it."""
    sys.stderr.write(f"{text}\n")


def printable(text: str) -> str:
    """Keep a client's words from commanding the terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)


def parse_time(text: str) -> datetime:
    """Read a time in ISO 8601, of UTC where it does not say, or one such as 7d, 12h, 30m ago."""
    try:
        if ago := re.fullmatch(r"(\d+)([dhm])", text):
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time, expected one such as 2026-11-20, 2026-11-20T08:30, or 7d, 12h, "
            "30m for so long ago"
        ) from None


def parse_count(text: str) -> int:
    """Read a whole number from 1 on."""
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no count, expected a whole number from 1 on")
    return int(text)


def add_local(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--local", action="store_true", help="the file of this machine, also if a database is set"
    )


def add_since(parser: argparse.ArgumentParser, when: str = "") -> None:
    parser.add_argument(
        "--since",
        metavar="TIME",
        type=parse_time,
        help=f"{when}a date or time in UTC, or so long ago: 7d, 12h, 30m",
    )

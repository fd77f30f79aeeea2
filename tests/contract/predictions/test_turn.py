"""One process at a time delivers a log, and says which it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.predictions.turn import (
    Holder,
    holder_of,
    n_failures,
    note_failures,
    sign,
    still_has_lock,
    still_has_place,
    take_lock,
    take_place,
)

ROOT = Path(__file__).parents[3]
TARGET = "db.example.org:5432/flats"


def test_only_one_process_at_a_time_has_the_lock(path):
    lock = take_lock(path)
    program = f"""if True:
        from pathlib import Path
        from contract.predictions.turn import take_lock
        raise SystemExit(take_lock(Path({str(path)!r})) is None)
    """

    def refused() -> int:
        return subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode

    assert refused() == 1
    os.close(lock)
    assert refused() == 0


def test_who_has_the_lock_can_be_read_by_others(path):
    assert holder_of(path) is None
    lock = take_lock(path)
    assert holder_of(path) is None

    sign(lock, "a much longer name than that of the next:5432/rents")
    sign(lock, TARGET)
    os.close(lock)

    assert holder_of(path) == Holder(os.getpid(), TARGET)
    assert str(holder_of(path)) == f"process {os.getpid()} delivers it to {TARGET}"


def test_place_of_who_is_next_is_another_right_and_keeps_how_many_have_failed(path):
    lock, place = take_lock(path), take_place(path)
    assert take_place(path) is None
    os.close(lock)
    assert take_place(path) is None

    assert n_failures(place) == 0
    note_failures(place, 12)
    note_failures(place, 3)
    os.close(place)

    assert n_failures(take_place(path)) == 3


def test_right_ends_when_its_file_is_removed_or_moved(path):
    lock, place = take_lock(path), take_place(path)
    assert still_has_lock(lock, path)
    assert still_has_place(place, path)

    Path(f"{path}-shipper").unlink()
    Path(f"{path}-shipper-next").rename(f"{path}-elsewhere")

    assert not still_has_lock(lock, path)
    assert not still_has_place(place, path)
    others = take_lock(path), take_place(path)
    assert still_has_lock(others[0], path)
    assert still_has_place(others[1], path)


def test_folder_of_the_log_is_made(tmp_path):
    assert take_lock(tmp_path / "not" / "there" / "predictions.db") is not None


@pytest.mark.parametrize("content", [b"", b"1", b"no process", b"5 ", b"\xff\xfe 1"])
def test_signature_that_is_none_names_nobody(content, path):
    Path(f"{path}-shipper").write_bytes(content)

    assert holder_of(path) is None

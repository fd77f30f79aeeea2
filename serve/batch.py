"""A CSV in, the same rows with predictions out; memory stays flat, however many rows there are.

First the whole file is read and checked, in chunks that wait in a temporary file. Only then are
rows predicted and logged, chunk by chunk, as the answer leaves.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from tempfile import TemporaryFile
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa

from contract.artifact import Model, Predictions
from contract.features import Contract
from serve.answer import ERROR, Table, as_text, spread
from serve.check import Check, Found, shown
from serve.columns import CheckedColumn, check_column
from serve.errors import CheckError, Problem, StorageError, UploadError
from serve.upload import Chunk, Limits, Upload

OnError = Literal["refuse", "skip"]
# takes checked values, a row each, and gives the ids of what it logged
Append = Callable[[np.ndarray, Predictions], Sequence[str | None]]


def read_batch(
    file: BinaryIO, check: Check, limits: Limits, on_error: OnError = "refuse"
) -> "Batch":
    """Read and check a whole upload.

    Raises UploadError or TooLargeError if it is no table, and CheckError with the first problems
    if a column is missing or, unless `on_error` is "skip", any row is wrong.
    """
    upload = Upload(file, check.contract.spelling_to_name(), limits)
    places = find_columns(upload, check.contract)
    try:
        with ExitStack() as stack:
            batch = stack.enter_context(closing(Batch(upload, check, on_error == "skip")))
            batch.fill(places)
            stack.pop_all()
    except OSError as error:
        raise StorageError(f"The server cannot keep the file for now: {error}.") from error
    return batch


def find_columns(upload: Upload, contract: Contract) -> dict[str, int]:
    """Give the place of each feature's column, under its name or a former one.

    A feature that may have gaps needs its column, too: a misspelt header would pass for gaps.
    """
    sent = [name.strip() for name in upload.header]
    found, problems = {}, []
    for feature in contract.features:
        places = [place for place, name in enumerate(sent) if name in feature.spellings]
        if len(places) > 1:
            both = " and ".join(repr(sent[place]) for place in places)
            raise UploadError(f"Two columns hold {feature.name}: {both}. Leave one out.")
        if places:
            found[feature.name] = places[0]
        else:
            reason = f"the column is missing, the file has {shown(', '.join(sent))}"
            problems.append(Problem(feature.name, None, reason, "missing", upload.header_line))
    if problems:
        raise CheckError(problems)
    return found


class Batch:
    """A checked upload that waits for its answer; close it, or read the answer to its end."""

    def __init__(self, upload: Upload, check: Check, skips: bool):
        self.n_rows = 0  # the wrong ones included
        self.counts: Counter[tuple[str, str]] = Counter()  # field and rule, of rows skipped
        self._upload = upload
        self._check = check
        self._contract = check.contract
        self._skips = skips
        self._waiting = TemporaryFile()  # noqa: SIM115, closed by close(); nameless on disk
        cells = [pa.field(f"cell {place}", pa.string()) for place in range(len(upload.header))]
        values = [pa.field(f"value {name}", pa.float64()) for name in self._contract.names()]
        self._schema = pa.schema([*cells, *values, pa.field(ERROR, pa.string())])

    def fill(self, places: dict[str, int]) -> None:
        """Read, check and store all rows; once, by `read_batch`."""
        found = Found()
        with pa.ipc.new_stream(self._waiting, self._schema) as writer:
            for chunk in self._upload.chunks():
                columns = [
                    check_column(chunk.cells.column(places[feature.name]), feature, self._check)
                    for feature in self._contract.features
                ]
                errors = _note(columns, chunk, found)
                self.n_rows += len(chunk.lines)
                if self._skips or not found:
                    writer.write_batch(self._stored(chunk, columns, errors))
        if found and not self._skips:
            raise found.error()
        self.counts = found.counts

    def _stored(
        self, chunk: Chunk, columns: list[CheckedColumn], errors: dict[int, str]
    ) -> pa.RecordBatch:
        texts = pa.nulls(len(chunk.lines), pa.string())
        if errors:
            texts = pa.array([errors.get(place) for place in range(len(chunk.lines))], pa.string())
        values = [pa.array(column.values) for column in columns]
        return pa.record_batch([*chunk.cells.columns, *values, texts], schema=self._schema)

    def answer(
        self, model: Model, append: Append | None = None, with_ids: bool = False
    ) -> Iterator[bytes]:
        """Give the CSV: rows as sent, with predictions; each is logged before it leaves.

        The model's contract is that of the check. Wrong rows hold no prediction but an `error`.
        With ids there is a column of them; it is blank where nothing is logged.
        """
        try:
            self._waiting.seek(0)
            table = Table(self._upload, self._contract, with_ids, self._skips)
            head = table.header()
            for rows in pa.ipc.open_stream(self._waiting):
                yield head + table.rows(self._with_predictions(rows, model, append, with_ids))
                head = b""
        finally:
            self.close()

    def _with_predictions(
        self, rows: pa.RecordBatch, model: Model, append: Append | None, with_ids: bool
    ) -> list[pa.Array]:
        """Give the cells as sent, then those of the columns that are new."""
        n_sent, errors = len(self._upload.header), rows.column(ERROR)
        values = np.column_stack(rows.columns[n_sent:-1])
        is_right = errors.is_null().to_numpy(zero_copy_only=False)
        values = values if is_right.all() else values[is_right]
        told, ids = _predict(model, values), [None] * len(values)
        if append is not None and len(values):
            ids = append(values, told)
        new = [as_text(each, is_right) for each in (told.prediction, told.lower, told.upper)]
        if with_ids:
            new.append(spread(pa.array(ids, pa.string()).fill_null(""), is_right))
        return [*rows.columns[:n_sent], *new, *([errors.fill_null("")] * self._skips)]

    def close(self) -> None:
        """Let go of the temporary file."""
        self._waiting.close()


def _predict(model: Model, values: np.ndarray) -> Predictions:
    if not len(values):  # not every model takes an empty matrix
        return Predictions(*np.empty((3, 0)))
    return model.predict(values.astype(np.float32))


def _note(columns: list[CheckedColumn], chunk: Chunk, found: Found) -> dict[int, str]:
    """Take down the problems of a chunk by line; give those of each wrong row in words."""
    errors = {}
    for place in sorted(set().union(*(column.problems for column in columns))):
        problems = [column.problems[place] for column in columns if place in column.problems]
        for problem in problems:
            found.add(problem, int(chunk.lines[place]))
        errors[place] = "; ".join(map(_in_words, problems))
    return errors


def _in_words(problem: Problem) -> str:
    if problem.value is None:
        return f"{problem.field}: {problem.reason}"
    return f"{problem.field} is {problem.value!r}, {problem.reason}"

"""Read the prediction log from PostgreSQL."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import pyarrow as pa
from psycopg2 import extensions

from contract.predictions.connection import connect, in_words
from contract.predictions.privacy import HASHED
from contract.predictions.read import (
    EVERYTHING,
    ROWS_A_BATCH,
    ROWS_IN_ORDER,
    SCHEMA,
    Reader,
    Window,
    as_batch,
)
from contract.predictions.settings import DatabaseAddress
from contract.predictions.tables import NEWEST_TRUTHS

CONNECT_S = 5.0
PATIENCE_S = 120.0  # for one answer; counting millions of rows takes a while
SIZE = """SELECT pg_total_relation_size('predictions') + pg_total_relation_size('prediction_truths')
    + pg_total_relation_size('{rejections}') + pg_total_relation_size('{models}')"""


class DatabaseReader(Reader):
    """Reads the tables in PostgreSQL."""

    WORDS: Mapping[str, str] = {
        "time": "CAST(round(date_part('epoch', p.time) * 1000) AS bigint)",
        "hour": "date_trunc('hour', p.time, 'UTC')",
        "place": "CAST(p.id AS text)",
        "in_order": "p.time, p.id",
        "oldest_first": "p.time, p.version",
        "in_time": "p.time >= %(since)s AND p.time < %(until)s",
        "in_window": """p.time >= %(since)s AND p.time < %(until)s
            AND (p.time, p.id) >= (%(first_time)s, CAST(%(first)s AS uuid))""",
        "is_hashed": f"p.features @? '$.* ? (@ starts with \"{HASHED}\")'",
        "has_a_gap": "p.features @? '$.* ? (@ == null)'",
        "each_feature": "jsonb_each(p.features)",
        "each_id": "SELECT CAST(jsonb_array_elements_text(%(ids)s) AS uuid)",
        "is_gap": "f.value = 'null'",
        "truths": NEWEST_TRUTHS,
        "rejections": "prediction_rejections",
        "models": "prediction_models",
    }
    FIRST = """SELECT CAST(p.id AS text), p.time FROM predictions p WHERE {in_time}
        ORDER BY p.time DESC, p.id DESC LIMIT 1 OFFSET %(last)s - 1"""

    def __init__(self, address: DatabaseAddress) -> None:
        self.name, self._address = address.name, address
        self._connection = self._connect()
        self._connection.autocommit = True

    def _connect(self) -> extensions.connection:
        connection = connect(self._address, patience_s=CONNECT_S)
        connection.patience_s = PATIENCE_S
        return connection

    def close(self) -> None:
        self._connection.close()

    def n_bytes(self) -> int:
        return self.ask(SIZE)[0][0]

    def batches(
        self, window: Window = EVERYTHING, rows_a_batch: int = ROWS_A_BATCH
    ) -> Iterator[pa.RecordBatch]:
        with in_words(self._address), closing(self._connect()) as own:
            with own.cursor() as cursor:
                bounds = self._bounds(cursor, window)
            # of the server, which keeps what is not yet sent; to close it would mean to wait for
            # the server, which may be frozen, and it ends with its connection
            cursor = own.cursor("batches")
            cursor.execute(self._in_dialect(ROWS_IN_ORDER), bounds)
            while rows := cursor.fetchmany(rows_a_batch):
                yield as_batch(rows, SCHEMA)

    def ask(self, query: str, window: Window = EVERYTHING, **values: Any) -> list[tuple]:
        with in_words(self._address), self._connection.cursor() as cursor:
            bounds = self._bounds(cursor, window)
            cursor.execute(self._in_dialect(query), bounds | values)
            return cursor.fetchall()

    def _bounds(self, cursor: extensions.cursor, window: Window) -> dict[str, Any]:
        bounds = {
            "since": window.since or "-infinity",
            "until": window.until or "infinity",
            "last": window.last,
            "first": "00000000-0000-0000-0000-000000000000",
            "first_time": "-infinity",
        }
        if window.last is not None:
            cursor.execute(self._in_dialect(self.FIRST), bounds)
            if found := cursor.fetchone():
                first, time = found
                bounds |= {"first": first, "first_time": time, "since": time}
        return bounds

    def _in_dialect(self, query: str) -> str:
        return query.format(**self.WORDS)

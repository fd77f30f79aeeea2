"""Delivery to a real PostgreSQL: rows arrive once, no wait is long, and errors say what to do."""

import json
import math
import re
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote
from uuid import uuid4

import psutil
import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.features import Contract, Feature, Target
from contract.predictions.database import (
    BadRowError,
    Database,
    DatabaseError,
    connect,
    in_words,
)
from contract.predictions.file import open_log
from contract.predictions.migration import migrate
from contract.predictions.settings import DatabaseAddress
from contract.predictions.tables import COLUMNS, TABLES
from tests.postgres import PASSWORD, FreshDatabase

CONTRACT = Contract(
    target=Target(name="rent"),
    features=[
        Feature(name="area", kind="numeric", range=(8, 500)),
        Feature(name="heating", kind="nominal", categories=["gas", "district"]),
    ],
)
PATIENCE_S = 0.5
SECRET = "hunter2"
MODEL = ("0a1b2c3d4e5f", "2026-11-23T10:00:00.123Z", "{}")
AWKWARD = ["", "NULL", "null", 'a "quoted" {word}, \\ and \n', "%s %(x)s", "Miete in €, 𝄞", "'; --"]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
numbers = st.none() | st.floats()


def row(**changes) -> tuple:
    """Give a row of predictions as SQLite has it."""
    values = {
        "id": str(uuid4()),
        "time": "2026-11-23T10:00:00.123Z",
        "model": "0a1b2c3d4e5f",
        "source": "api",
        "request_id": "r-1",
        "features": '{"area": 72.0, "heating": "gas"}',
        "prediction": 812.5,
        "lower": 700.0,
        "upper": 900.0,
        "latency_ms": 1.5,
    }
    return tuple((values | changes).values())


@pytest.fixture
def database(postgres) -> Iterator[Database]:
    with closing(Database(DatabaseAddress(postgres.url), patience_s=PATIENCE_S)) as database:
        database.expect_tables()
        yield database


def count(postgres: FreshDatabase) -> int:
    return postgres.execute("SELECT count(*) FROM predictions")[0][0]


def make_role(postgres: FreshDatabase, rights: str = "") -> tuple[str, DatabaseAddress]:
    """Make a role that may do what is granted here and no more."""
    role = f"role_{uuid4().hex}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")
    if rights:
        postgres.execute(f"GRANT {rights} TO {role}")
    return role, DatabaseAddress(postgres.url_of(role, SECRET))


def error_of(function, *arguments) -> DatabaseError:
    """Give the error in words, and see that it shows no password, however it is printed."""
    with pytest.raises(DatabaseError) as caught:
        function(*arguments)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert PASSWORD not in shown and SECRET not in shown
    return caught.value


def seconds_of(function, *arguments) -> float:
    start = time.monotonic()
    assert not error_of(function, *arguments).is_lasting
    return time.monotonic() - start


# what arrives


def test_each_table_takes_its_rows(database, postgres):
    time_, row_id = "2026-11-23T10:00:00.123Z", str(uuid4())

    database.insert("predictions", [row(id=row_id)])
    database.insert("rejections", [(row_id, time_, "api", "area", "range", 3)])
    database.insert("models", [("0a1b2c3d4e5f", time_, CONTRACT.model_dump_json())])
    database.insert("truths", [(row_id, time_, 800.0)])

    query = "SELECT id::text, (extract(epoch FROM time) * 1000)::bigint, {} FROM {}"
    came = postgres.execute(query.format("features, prediction", "predictions"))
    assert came == [(row_id, 1795428000123, {"area": 72.0, "heating": "gas"}, 812.5)]
    came = postgres.execute("SELECT source, field, rule, count FROM prediction_rejections")
    assert came == [("api", "area", "range", 3)]
    came = postgres.execute("SELECT version, contract FROM prediction_models")
    assert came == [("0a1b2c3d4e5f", json.loads(CONTRACT.model_dump_json()))]
    assert postgres.execute("SELECT truth FROM prediction_truths") == [(800.0,)]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(texts | st.sampled_from(AWKWARD), numbers), min_size=1))
def test_texts_and_numbers_arrive_as_they_were(database, postgres, rows):
    sent = {}
    for text, number in rows:
        sent[str(uuid4())] = (text, number, {text: text})

    database.insert(
        "predictions",
        [
            row(id=key, request_id=text, features=json.dumps(features), lower=number, upper=number)
            for key, (text, number, features) in sent.items()
        ],
    )

    query = "SELECT id::text, request_id, lower, features FROM predictions WHERE id::text = ANY(%s)"
    came = {key: values for key, *values in postgres.execute(query, list(sent))}
    assert came.keys() == sent.keys()
    for key, (text, number, features) in sent.items():
        assert came[key][0] == text and came[key][2] == features
        assert came[key][1] == number or (math.isnan(came[key][1]) and math.isnan(number))


def test_rows_that_are_there_already_are_not_doubled(database, postgres):
    first, second, third = row(), row(), row()

    database.insert("predictions", [first, second])
    database.insert("predictions", [second, third, third])
    database.insert("predictions", [first, second, third])
    database.insert("models", [MODEL])
    database.insert("models", [MODEL])

    assert count(postgres) == 3
    assert postgres.execute("SELECT count(*) FROM prediction_models") == [(1,)]


def test_no_rows_need_no_connection():
    Database(DatabaseAddress("postgresql://nobody:x@nowhere.invalid/x")).insert("predictions", [])


def test_a_row_is_not_dropped_because_of_another_constraint(database, postgres):
    postgres.execute("ALTER TABLE predictions ADD UNIQUE (request_id)")

    error = error_of(database.insert, "predictions", [row(), row()])

    assert error.is_lasting and not isinstance(error, BadRowError)
    assert "violates unique constraint" in str(error) and "Drop the constraint" in str(error)


@pytest.mark.parametrize(
    "bad",
    [
        {"model": "nul \0"},
        {"model": "half a pair \ud834"},
        {"model": "x" * 300_000},  # longer than an index takes
        {"features": '{"area": "\\u0000"}'},
        {"features": '{"area": "\\ud834"}'},
        {"features": '{"area": 72'},
        {"features": '{"area": NaN}'},
        {"features": '{"area": 1e400000}'},
        {"features": ""},
        {"features": "[" * 100_000},
        {"id": "7"},
        {"time": "yesterday or so"},
        {"time": "2026-13-01T00:00:00Z"},
        {"prediction": "1e999"},
        {"latency_ms": "slow"},
    ],
    ids=lambda bad: "-".join(f"{key}={value!r:.20}" for key, value in bad.items()),
)
def test_a_value_that_cannot_be_held_is_told_and_harms_nothing_else(
    database,
    postgres,
    bad,
):
    database.insert("predictions", [row()])
    (backend,) = backends(postgres)

    error = error_of(database.insert, "predictions", [row(), row(**bad), row()])

    assert isinstance(error, BadRowError)
    assert database.address.name in str(error) and len(str(error)) < 300
    assert count(postgres) == 1
    database.insert("predictions", [row()])
    assert count(postgres) == 2
    assert backends(postgres) == [backend]  # over the same connection


def backends(postgres: FreshDatabase) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'prediction log'"
    return [
        pid for (pid,) in postgres.execute(f"{query} AND datname = %s ORDER BY 1", postgres.name)
    ]


# no wait is long


def test_a_frozen_server_holds_nobody_longer_than_patience(database, postgres):
    address = database.address
    with closing(connect(address, patience_s=PATIENCE_S)) as connection:
        connection.cursor().execute("SELECT 1")
        postgres.server.freeze()

        def commit():
            with in_words(address):
                connection.commit()

        assert seconds_of(commit) < PATIENCE_S + 1
        assert seconds_of(database.insert, "predictions", [row()]) < PATIENCE_S + 1
        assert seconds_of(database.insert, "predictions", [row()]) < PATIENCE_S + 1  # connects
        assert seconds_of(database.expect_tables) < PATIENCE_S + 1

    postgres.server.thaw()
    database.insert("predictions", [row()])
    assert count(postgres) >= 1  # that of the first insert may have come in when the server thawed


def test_a_frozen_server_takes_no_rows_for_ever(database, postgres):
    postgres.server.freeze()

    many = [row(features=json.dumps({"area": "x" * 10_000})) for _ in range(2_000)]

    assert seconds_of(database.insert, "predictions", many) < PATIENCE_S + 1


def test_rows_come_in_again_when_a_killed_server_is_back(database, postgres):
    before, after = row(), row()
    database.insert("predictions", [before])

    postgres.server.kill()
    assert seconds_of(database.insert, "predictions", [after]) < PATIENCE_S + 1
    assert seconds_of(database.insert, "predictions", [after]) < PATIENCE_S + 1
    postgres.server.start()
    database.insert("predictions", [before, after])

    assert count(postgres) == 2


def test_a_server_that_was_restarted_costs_one_failure(database, postgres):
    postgres.server.restart()

    error = error_of(database.insert, "predictions", [row()])
    database.insert("predictions", [row()])

    assert not error.is_lasting
    assert count(postgres) == 1


def test_a_locked_table_holds_nobody_and_leaves_nobody_waiting(database, postgres):
    with closing(psycopg2.connect(postgres.url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE predictions")

        errors = [error_of(database.insert, "predictions", [row()])]
        errors += [error_of(database.expect_tables)]

        for error in errors:
            assert "another holds a lock on the table" in str(error) and not error.is_lasting
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        assert postgres.execute(waiting) == [(0,)]
    database.insert("predictions", [row()])
    assert count(postgres) == 1


def test_the_look_up_of_a_host_counts_among_the_waits(postgres):
    url = postgres.url.replace("127.0.0.1", "localhost")

    assert seconds_of(Database(DatabaseAddress(url), patience_s=0.0).expect_tables) < 1


def test_rows_stream_through_a_cursor_with_a_name(database, postgres):
    database.insert("predictions", [row() for _ in range(1_000)])

    with closing(connect(database.address, patience_s=PATIENCE_S)) as connection:
        cursor = connection.cursor(name="rows")
        cursor.execute("SELECT id FROM predictions")
        n_rows = [len(cursor.fetchmany(400)) for _ in range(4)]

    assert n_rows == [400, 400, 200, 0]


# what is wrong, in words


REFUSED_PORT = 1


@pytest.mark.parametrize(
    ("changes", "words", "is_lasting"),
    [
        ({"password": "wrong"}, "password authentication failed .* Correct user and", True),
        ({"user": "somebody"}, "password authentication failed .* Correct user and", True),
        ({"password": ""}, "no password supplied.* Correct user and password", True),
        ({"name": "nosuch"}, '"nosuch" does not exist. Create the database, or correct', True),
        ({"host": "nowhere.invalid"}, "host is not known here", True),
        ({"host": "x" * 64 + ".org"}, "host is not known here", True),
        ({"host": f"{SECRET}@127.0.0.1"}, "host is not known here.* %40", True),
        ({"port": REFUSED_PORT}, "Connection refused. Start the server, correct host", False),
        ({"query": "?sslmode=require"}, "does not support SSL.* Correct sslmode", True),
        ({"query": "?sslmode=perhaps"}, 'invalid sslmode value: "perhaps". Correct ssl', True),
        ({"query": "?color=red"}, "the URL cannot be read.* Correct it", True),
        ({"password": f"{SECRET}%zz"}, "the URL cannot be read.* Correct it", True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_whoever_cannot_connect_is_told_why(postgres, changes, words, is_lasting):
    given = {"user": "postgres", "password": quote(PASSWORD, ""), "host": "127.0.0.1"}
    given |= {"port": postgres.server.port, "name": postgres.name, "query": ""} | changes
    address = DatabaseAddress(
        "postgresql://{user}:{password}@{host}:{port}/{name}{query}".format(**given)
    )

    error = error_of(Database(address).expect_tables)

    assert re.search(words, str(error))
    assert error.is_lasting == is_lasting
    assert str(error).startswith(address.name) and "\n" not in str(error)


def test_a_connection_that_failed_is_closed_while_its_error_is_kept(postgres):
    role, _ = make_role(postgres)
    address = DatabaseAddress(postgres.url_of(role, ""))

    error = error_of(Database(address).expect_tables)
    links = psutil.Process().net_connections("tcp")

    assert "no password supplied" in str(error)
    assert not [link for link in links if link.raddr and link.raddr.port == postgres.server.port]


def test_a_role_that_may_not_log_in_or_come_so_often_is_told(postgres):
    role, address = make_role(postgres)

    postgres.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    assert not error_of(Database(address).expect_tables).is_lasting
    postgres.execute(f"ALTER ROLE {role} NOLOGIN")
    error = error_of(Database(address).expect_tables)

    assert "not permitted to log in. Correct user and password" in str(error) and error.is_lasting


def test_a_replica_is_told(database, postgres):
    postgres.execute(f"ALTER DATABASE {postgres.name} SET default_transaction_read_only = on")
    database.close()

    error = error_of(database.insert, "predictions", [row()])

    assert "read-only transaction. It is a replica: name the primary" in str(error)
    assert not error.is_lasting


def test_a_table_that_is_gone_is_told_and_made_anew(database, postgres):
    postgres.execute("DROP TABLE predictions")

    error = error_of(database.insert, "predictions", [row()])
    database.expect_tables()
    database.insert("predictions", [row()])

    assert '"predictions" does not exist' in str(error) and error.is_lasting
    assert "python -m ops.predictions migrate" in str(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP COLUMN model", "not ours: it has no column model, expected it as text. Rename"),
        ("RENAME features TO inputs", "not ours: it has no column features, expected it as jsonb."),
        (
            "ALTER COLUMN request_id TYPE bigint USING 1, DROP COLUMN lower",
            "not ours: its column request_id is bigint, expected text, it has no column lower, exp",
        ),
        ("DROP CONSTRAINT predictions_pkey", "not ours: it has no key id. Rename"),
        ("DROP COLUMN time", "not ours: it has no column time, expected it as timestamp with"),
    ],
)
def test_a_table_of_another_program_is_not_written_to(database, postgres, change, words):
    postgres.execute(f"ALTER TABLE predictions {change}")

    error = error_of(database.expect_tables)

    assert "the table predictions is not ours" in str(error) and words in str(error)
    assert "Rename it, or name another database" in str(error) and error.is_lasting
    of_migrate = error_of(migrate, database.address, CONTRACT)
    assert words in str(of_migrate) and of_migrate.is_lasting


def test_columns_that_a_user_has_added_do_no_harm(database, postgres):
    postgres.execute(
        "ALTER TABLE predictions ADD COLUMN note text, ADD COLUMN at timestamptz DEFAULT now()"
    )

    database.expect_tables()
    database.insert("predictions", [row()])

    assert count(postgres) == 1


# who may what


def test_a_role_with_insert_and_select_alone_delivers(postgres):
    role, address = make_role(postgres)
    migrate(DatabaseAddress(postgres.url), CONTRACT, grant_to=role)

    with closing(Database(address)) as database:
        database.expect_tables()
        database.insert("predictions", [row()])
    with closing(connect(address, patience_s=PATIENCE_S)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT area, heating FROM predictions_typed")
        assert cursor.fetchall() == [(72.0, "gas")]
        with pytest.raises(DatabaseError, match="permission denied"), in_words(address):
            cursor.execute("DELETE FROM predictions")


def test_a_role_of_another_schema_delivers_there(postgres):
    role, address = make_role(postgres)
    postgres.execute("CREATE SCHEMA rents")
    in_schema = "?options=-csearch_path%3Drents"
    migrate(DatabaseAddress(postgres.url + in_schema), CONTRACT, grant_to=role)

    with closing(Database(DatabaseAddress(address.url + in_schema))) as database:
        database.expect_tables()
        database.insert("predictions", [row()])

    assert postgres.execute("SELECT count(*) FROM rents.predictions") == [(1,)]


def test_a_role_that_may_not_make_what_is_missing_is_told_who_can(postgres):
    _, address = make_role(postgres)

    error = error_of(Database(address).expect_tables)
    of_migrate = error_of(migrate, address, CONTRACT)

    for name in TABLES.values():
        assert name.name in str(error)
    assert "Run `python -m ops.predictions migrate` with an owner role" in str(error)
    assert "permission denied for schema public" in str(of_migrate)
    assert error.is_lasting and of_migrate.is_lasting


def test_a_role_without_insert_is_told(database, postgres):
    _, address = make_role(postgres)

    error = error_of(Database(address).expect_tables)

    assert "permission denied for table predictions. Run `python -m ops" in str(error)
    assert error.is_lasting


def test_a_role_that_may_make_tables_makes_what_is_missing(database, postgres):
    """It may own some of them only."""
    role, address = make_role(postgres, "CREATE ON SCHEMA public")
    postgres.execute("DROP TABLE prediction_truths")
    postgres.execute(f"GRANT INSERT, SELECT ON ALL TABLES IN SCHEMA public TO {role}")

    with closing(Database(address)) as other:
        other.expect_tables()
        other.insert("truths", [(str(uuid4()), "2026-11-23T10:00:00.123Z", 1.0)])

    assert postgres.execute("SELECT count(*) FROM prediction_truths") == [(1,)]


# migrate


def test_migrate_twice_is_as_good_as_once(postgres):
    address = DatabaseAddress(postgres.url)

    first = migrate(address, CONTRACT)
    with closing(Database(address)) as database:
        database.insert("predictions", [row()])
    second = migrate(address, CONTRACT)

    assert first[0] == "The table predictions was made."
    assert second[0] == "The table predictions is there."
    assert first[-1] == second[-1]
    assert first[-1] == "The view predictions_typed was made, with the features area, heating."
    assert postgres.execute("SELECT area, heating FROM predictions_typed") == [(72.0, "gas")]


EARLIER = """DROP VIEW predictions_typed; DROP TABLE prediction_truths;
    CREATE TABLE prediction_truths
        (id uuid PRIMARY KEY, time timestamptz NOT NULL, truth double precision NOT NULL);
    CREATE VIEW predictions_typed AS SELECT predictions.*, truth
    FROM predictions LEFT JOIN prediction_truths USING (id)"""


@pytest.fixture
def earlier(postgres) -> tuple[DatabaseAddress, str]:
    """Give a database as a release before corrected truths made it, and the id of a row in it."""
    address, row_id = DatabaseAddress(postgres.url), str(uuid4())
    migrate(address, CONTRACT)
    postgres.execute(EARLIER)
    with closing(Database(address)) as database:
        database.insert("predictions", [row(id=row_id)])
    postgres.execute("INSERT INTO prediction_truths VALUES (%s, '2026-12-01', 1)", row_id)
    return address, row_id


def test_tables_of_an_earlier_release_are_told_and_brought_up_to_date(postgres, earlier):
    address, row_id = earlier

    error = error_of(Database(address).expect_tables)
    first, second = migrate(address, CONTRACT), migrate(address, CONTRACT)

    assert "prediction_truths is of an earlier release: its key is id, expe" in str(error)
    assert "Run `python -m ops.predictions migrate`" in str(error) and error.is_lasting
    assert "The table prediction_truths keeps several truths an id from now on" in " ".join(first)
    assert "from now on" not in " ".join(second)
    with closing(Database(address)) as database:
        database.expect_tables()
        database.insert("truths", [(row_id, "2026-12-02T00:00:00.000Z", 2.0)])
    assert postgres.execute("SELECT id::text, truth FROM predictions_typed") == [(row_id, 2.0)]
    assert postgres.execute("SELECT count(*) FROM prediction_truths") == [(2,)]


def test_tables_of_an_earlier_release_wait_for_a_contract_to_make_their_view_anew(earlier):
    address, _ = earlier

    error = error_of(migrate, address, None)

    assert "the view predictions_typed is of an earlier release" in str(error)
    assert "Set MODEL_FOLDER to the folder of a model, or drop the view" in str(error)


def test_migrate_without_a_contract_makes_the_tables(postgres):
    role, _ = make_role(postgres)

    said = migrate(DatabaseAddress(postgres.url), None, grant_to=role)

    assert len(said) == 5 and said[-1] == f"The role {role} may INSERT and SELECT."
    assert postgres.execute("SELECT to_regclass('predictions_typed')") == [(None,)]


def test_migrate_makes_the_indexes(postgres):
    migrate(DatabaseAddress(postgres.url), None)
    postgres.execute("DROP INDEX predictions_time_idx")
    migrate(DatabaseAddress(postgres.url), None)

    query = "SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'prediction%%'"
    indexes = " ".join(definition for (definition,) in postgres.execute(query))
    assert 'predictions USING btree ("time")' in indexes
    assert 'predictions USING btree (model, "time")' in indexes


def test_a_grant_to_nobody_leaves_nothing_behind(postgres):
    error = error_of(migrate, DatabaseAddress(postgres.url), CONTRACT, 'no"body')

    assert 'role "no"body" does not exist. Make it first' in str(error) and error.is_lasting
    assert postgres.execute("SELECT to_regclass('predictions')") == [(None,)]


def test_many_servers_that_start_at_once_make_the_tables_together(postgres):
    address, errors = DatabaseAddress(postgres.url), []

    def start():
        try:
            with closing(Database(address)) as database:
                database.expect_tables()
                database.insert("predictions", [row()])
        except DatabaseError as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    migrate(address, CONTRACT)
    for thread in threads:
        thread.join()

    assert not errors and count(postgres) == 8


def test_columns_are_those_of_the_local_log(tmp_path):
    with closing(open_log(tmp_path / "log.db", sync_full=False)) as log:
        for name, columns in COLUMNS.items():
            found = [column for _, column, *_ in log.execute(f"PRAGMA table_info({name})")]
            assert found == ["seq", *columns]

"""The typed view on a real PostgreSQL: a column a feature, and no value that breaks a query."""

import json
import re
from contextlib import closing
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.features import Contract, Feature, Target
from contract.predictions.database import Database, DatabaseError
from contract.predictions.migration import migrate
from contract.predictions.settings import DatabaseAddress
from contract.predictions.typed_view import LOGGED, VIEW, columns_of
from tests.contract.strategies import contracts
from tests.postgres import FreshDatabase

NUMBERS = [
    *("0", "-0", "-0.0", "72", "72.0", "7.2e1", "72.5", "1e3", "0.1", "1e-7", "-1e300", "1e300"),
    *("9223372036854775807", "-9223372036854775808", "9223372036854775808", "-9223372036854775809"),
    *("9223372036854775807.0", "9223372036854775806.5", "1.7976931348623157e308", "1e309", "1e400"),
    *("-1e400", "5e-324", "2e-324", "-1e-400", "2.2250738585072014e-308", "1e99999", "1e-9999"),
]
OTHERS = ["null", "true", "false", '""', '"72"', '"NaN"', '"hash:0123"', "[]", "[72]", '{"a": 1}']
TEXTS = [*NUMBERS, *OTHERS]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)
values = st.sampled_from(TEXTS) | (texts | documents).map(json.dumps)


def number(name: str, dtype: str = "float") -> Feature:
    return Feature(name=name, kind="numeric", dtype=dtype, range=(0, 100))


def words(name: str) -> Feature:
    return Feature(name=name, kind="nominal", categories=["gas", "district"])


def contract_of(*features: Feature) -> Contract:
    return Contract(target=Target(name="rent of the flat"), features=features)


def log(postgres: FreshDatabase, *features: str) -> list[str]:
    """Log rows with these features, each a JSON text; give their ids."""
    ids = [str(uuid4()) for _ in features]
    time, about = "2026-11-23T10:00:00.000Z", ("0a1b", "api", "r-1")
    rows = [
        (row_id, time, *about, text, 1.5, None, None, 0.5)
        for row_id, text in zip(ids, features, strict=True)
    ]
    with closing(Database(DatabaseAddress(postgres.url))) as database:
        database.insert("predictions", rows)
    return ids


def make(postgres: FreshDatabase, *features: Feature) -> None:
    migrate(DatabaseAddress(postgres.url), contract_of(*features))


def columns(postgres: FreshDatabase) -> dict[str, str]:
    query = """SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
        WHERE attrelid = to_regclass(%s) ORDER BY attnum"""
    return dict(postgres.execute(query, VIEW))


def expected(feature: Feature, text: str) -> float | int | str | None:
    """Say what the view shows for a JSON text, by another way than the view's."""
    value = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    if feature.kind != "numeric":
        return value if isinstance(value, str) else None
    if not isinstance(value, Decimal):
        return None
    if feature.dtype == "int":
        fits = value == value.to_integral_value() and -(2**63) <= value < 2**63
        return int(value) if fits else None
    is_float = abs(value) <= Decimal("1.7976931348623157e308") and abs(value) >= Decimal("5e-324")
    return float(value) if is_float or not value else None


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contract=contracts(), data=st.data())
def test_no_value_breaks_a_query(postgres, contract, data):
    migrate(DatabaseAddress(postgres.url), contract)
    postgres.execute("TRUNCATE predictions")
    names = contract.names()
    rows = data.draw(st.lists(st.dictionaries(st.sampled_from(names), values), max_size=5))
    members = [{json.dumps(name): text for name, text in row.items()} for row in rows]
    log(postgres, *(f"{{{', '.join(map(': '.join, row.items()))}}}" for row in members))

    ids = postgres.execute(f"SELECT id FROM {VIEW}")
    everything = postgres.execute(f"SELECT * FROM {VIEW}")

    assert len(ids) == len(everything) == len(rows)
    came = [row[len(LOGGED) + 1 :] for row in everything]
    shown = [
        tuple(expected(feature, row.get(feature.name, "null")) for feature in contract.features)
        for row in rows
    ]
    assert sorted(came, key=repr) == sorted(shown, key=repr)


def test_each_type_takes_what_it_can_hold(postgres):
    features = (number("area"), number("rooms", "int"), words("heating"))
    make(postgres, *features)
    rows = [f'{{"area": {text}, "rooms": {text}, "heating": {text}}}' for text in TEXTS]
    text_of = dict(zip(log(postgres, *rows), TEXTS, strict=True))

    for row_id, *came in postgres.execute(f"SELECT id::text, area, rooms, heating FROM {VIEW}"):
        text = text_of.pop(row_id)
        assert came == [expected(feature, text) for feature in features], text
    assert not text_of


def test_types_follow_the_contract(postgres):
    make(postgres, number("area"), number("rooms", "int"), words("heating"))

    found = columns(postgres)

    assert list(found) == [*LOGGED, "truth", "area", "rooms", "heating"]
    assert found["area"] == "double precision"
    assert found["rooms"] == "bigint"
    assert found["heating"] == "text"


def test_truth_stands_beside_the_prediction(postgres):
    make(postgres, number("area"))
    known, unknown = log(postgres, "{}", "{}")
    with closing(Database(DatabaseAddress(postgres.url))) as database:
        database.insert("truths", [(known, "2026-12-01T00:00:00.000Z", 2.5)])

    came = dict(postgres.execute(f"SELECT id::text, truth FROM {VIEW}"))

    assert came == {known: 2.5, unknown: None}


def test_newest_truth_stands_beside_the_prediction_once(postgres):
    make(postgres, number("area"))
    (known,) = log(postgres, "{}")
    with closing(Database(DatabaseAddress(postgres.url))) as database:
        for truth, day in ((2.5, 1), (4.5, 3), (3.5, 2)):
            database.insert("truths", [(known, f"2026-12-0{day}T00:00:00.000Z", truth)])

    assert postgres.execute(f"SELECT id::text, truth FROM {VIEW}") == [(known, 4.5)]


def test_rows_of_an_older_contract_stay_beside_new_ones(postgres):
    make(postgres, number("area"), words("heating"))
    log(postgres, '{"area": 72.5, "heating": "gas"}')
    make(postgres, number("rooms", "int"), number("heating"))
    log(postgres, '{"rooms": 3, "heating": 21.5}')

    came = postgres.execute(f"SELECT rooms, heating FROM {VIEW} ORDER BY rooms NULLS FIRST")

    assert came == [(None, None), (3, 21.5)]


AREA, ROOMS, HEATING = number("area"), number("rooms", "int"), words("heating")


@pytest.mark.parametrize(
    "features",
    [
        pytest.param([AREA], id="removed"),
        pytest.param([AREA, HEATING, ROOMS], id="added"),
        pytest.param([HEATING, AREA], id="reordered"),
        pytest.param([number("size"), HEATING], id="renamed"),
        pytest.param([number("area", "int"), HEATING], id="of another type"),
    ],
)
def test_the_view_follows_a_changed_contract_and_its_readers_stay(postgres, features):
    make(postgres, AREA, HEATING)
    reader = f'Reader "{{}} 50 % {uuid4().hex}'
    quoted = '"{}"'.format(reader.replace('"', '""'))
    postgres.execute(f"CREATE ROLE {quoted}; GRANT SELECT ON {VIEW} TO {quoted}, PUBLIC")

    make(postgres, *features)

    assert list(columns(postgres))[len(LOGGED) + 1 :] == [feature.name for feature in features]
    query = f"SELECT has_table_privilege(%s, '{VIEW}', 'SELECT'), relacl::text FROM pg_class"
    ((may_read, grants),) = postgres.execute(f"{query} WHERE relname = '{VIEW}'", reader)
    assert (may_read and "{=r/" in grants) or ",=r/" in grants
    postgres.execute(f"DROP OWNED BY {quoted}")


def test_grants_on_columns_and_rights_to_pass_them_on_stay(postgres):
    make(postgres, AREA, HEATING)
    names = [f"reader_{uuid4().hex}" for _ in range(3)]
    first, second, third = names
    for name in names:
        postgres.execute(f"CREATE ROLE {name}")
    try:
        postgres.execute(
            f"GRANT SELECT (id, area, heating) ON {VIEW} TO {first};"
            f"GRANT SELECT (heating) ON {VIEW} TO {second} WITH GRANT OPTION;"
            f"GRANT SELECT ON {VIEW} TO {third} WITH GRANT OPTION"
        )

        make(postgres, HEATING, ROOMS)

        may = "SELECT has_column_privilege(%s, %s, %s, %s)"
        for name, column, right, expected in [
            (first, "id", "SELECT", True),
            (first, "heating", "SELECT", True),
            (first, "heating", "SELECT WITH GRANT OPTION", False),
            (first, "rooms", "SELECT", False),
            (second, "heating", "SELECT WITH GRANT OPTION", True),
            (second, "id", "SELECT", False),
            (third, "rooms", "SELECT WITH GRANT OPTION", True),
        ]:
            assert postgres.execute(may, name, VIEW, column, right) == [(expected,)], (name, column)
    finally:
        for name in names:
            postgres.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_view_on_top_survives_new_columns(postgres):
    make(postgres, AREA)
    postgres.execute(f"CREATE VIEW large_flats AS SELECT * FROM {VIEW} WHERE area > 100")

    make(postgres, AREA)
    make(postgres, AREA, HEATING)

    assert postgres.execute("SELECT count(*) FROM large_flats") == [(0,)]
    assert "heating" in columns(postgres)


def test_a_view_on_top_of_columns_that_go_is_named_and_nothing_changes(postgres):
    make(postgres, AREA, HEATING)
    postgres.execute(f"CREATE VIEW large_flats AS SELECT * FROM {VIEW} WHERE area > 100")

    with pytest.raises(DatabaseError) as caught:
        make(postgres, HEATING)

    message = "view large_flats depends on view predictions_typed. Drop what depends on the view"
    assert message in str(caught.value) and caught.value.is_lasting
    assert [*columns(postgres)][-2:] == ["area", "heating"]


def test_a_table_by_the_name_of_the_view_is_left_alone(postgres):
    postgres.execute(f"CREATE TABLE {VIEW} (id int)")

    with pytest.raises(DatabaseError, match=r"is not a view\. Rename") as caught:
        make(postgres, AREA)

    assert caught.value.is_lasting
    assert postgres.execute("SELECT to_regclass('predictions')") == [(None,)]


@pytest.mark.parametrize(
    "name",
    [
        *(
            'say "hi"',
            "it's",
            "100 %",
            "%s",
            "%(a)s",
            "Großer Raum",
            "Area",
            "SELECT",
            "a;b",
            "{x}",
        ),
        *("back\\slash", "$1", "features", "0", "-> 'x'", "x" * 63, "ä" * 31, "𝄞" * 15),
    ],
)
def test_a_feature_may_have_any_name(postgres, name):
    make(postgres, number(name), number("area"))
    log(postgres, json.dumps({name: 1.5, "area": 2.5}))

    quoted = '"{}"'.format(name.replace('"', '""').replace("%", "%%"))
    query = f"SELECT {quoted}, area FROM {VIEW} WHERE %s"

    assert postgres.execute(query, True) == [(1.5, 2.5)]


def test_names_that_are_taken_or_too_long_are_told_apart(postgres):
    names = ["id", "truth", "feature_id", "feature_id_2", "x" * 70, "x" * 64, "x" * 63, "é" * 40]
    make(postgres, *map(number, names))
    log(postgres, json.dumps({name: place for place, name in enumerate(names)}))

    shown = columns_of(contract_of(*map(number, names)))

    assert list(shown.values()) == [
        *("feature_id", "feature_truth", "feature_id_2", "feature_id_2_2"),
        *("x" * 63, "x" * 61 + "_2", "x" * 61 + "_3", "é" * 31),
    ]
    assert list(columns(postgres))[len(LOGGED) + 1 :] == list(shown.values())
    (row,) = postgres.execute(f"SELECT * FROM {VIEW}")
    assert row[len(LOGGED) + 1 :] == tuple(range(len(names)))


@pytest.mark.parametrize("name", ["nul\0", "half \ud834"])
def test_a_name_that_postgresql_cannot_hold_is_told(postgres, name):
    with pytest.raises(DatabaseError) as caught:
        make(postgres, number(name), number("area"))

    assert caught.value.is_lasting and "cannot hold" in str(caught.value)


def test_more_features_than_a_view_holds_are_told(postgres):
    with pytest.raises(DatabaseError, match=r"1664|1600") as caught:
        make(postgres, *(number(f"x{place}") for place in range(2_000)))

    assert caught.value.is_lasting


def test_its_definition_can_be_read(postgres):
    make(postgres, number("area"))

    ((definition,),) = postgres.execute(f"SELECT pg_get_viewdef('{VIEW}')")

    assert not re.search("0{20}", definition)

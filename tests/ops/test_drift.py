"""`ops.drift` tells drift of a table without a run, and each thing that keeps it from telling."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from contract.features import Contract
from contract.params import load_params
from contract.profile import REFERENCE
from ops.drift import main
from ops.simulate import simulate
from ops.train_rows import TRAIN_ROWS, read_train_rows

N_ROWS = 1_000
SEED = 5


@pytest.fixture
def place(trained, monkeypatch) -> Path:
    """A trained project of one's own, with the shipped reference, as the current folder."""
    monkeypatch.chdir(trained.root)
    return trained.root


@pytest.fixture
def contract(place) -> Contract:
    return load_params().contract


@pytest.fixture
def drift(place, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run `ops.drift` on rows as a CSV; give its exit code and both its outputs."""

    def run(rows: pd.DataFrame | None = None, *arguments: str) -> tuple[int, str, str]:
        given = [*arguments]
        if rows is not None:
            rows.to_csv(place / "new.csv", index=False)
            given += ["--source", "new.csv"]
        with pytest.raises(SystemExit) as ended:
            main(given)
        return ended.value.code, *capsys.readouterr()

    return run


def number_of(contract: Contract) -> str:
    return next(each.name for each in contract.features if each.kind == "numeric")


def category_of(contract: Contract) -> str:
    return next(each.name for each in contract.features if each.categories)


def test_source_of_params_is_read_and_nothing_is_written(drift, place, trained):
    before = trained.git("status", "--porcelain", "--ignored")

    code, out, err = drift()

    assert (code, err) == (0, "")
    assert out.startswith(f"calm: {load_params().data.source} looks like the reference (1,000 ")
    assert trained.git("status", "--porcelain", "--ignored") == before


def test_other_unit_and_unseen_group_are_both_named(drift, contract):
    rows, number, category = simulate(N_ROWS, SEED), number_of(contract), category_of(contract)
    rows[number] = (rows[number] / 3).round().astype(int)
    rows[category] = rows[category].astype(str).mask(rows.index <= N_ROWS // 10, "another")

    code, out, _ = drift(rows)

    assert code == 1
    verdict = out.split("\n")[0]
    assert number in verdict
    assert category in verdict
    assert "unseen share" in out
    assert "101 values break the contract" in out


def test_few_rows_are_no_judgement(drift):
    code, out, err = drift(simulate(N_ROWS, SEED)[:1])

    assert (code, err) == (2, "")
    assert "too few rows to judge, expected 500 or more (1,000 rows accepted, 1 compared)" in out


def test_column_without_values_and_one_of_all_the_same_are_named(drift, contract):
    rows, number, category = simulate(N_ROWS, SEED), number_of(contract), category_of(contract)
    rows[number], rows[category] = 70, None

    code, out, err = drift(rows)

    assert (code, err) == (1, "")
    assert f"{category} has no value in the rows." in out
    assert number in out.split("\n")[0]


def test_table_without_a_number_that_can_be_read_is_too_few(drift, contract):
    code, out, err = drift(simulate(N_ROWS, SEED).assign(**{number_of(contract): "many"}))

    assert (code, err) == (2, "")
    assert "0 compared" in out


@pytest.mark.parametrize("text", [None, "{}"])
def test_without_a_reference_it_says_how_to_accept_one(drift, text):
    REFERENCE.write_text(text) if text else REFERENCE.unlink()

    code, _, err = drift()

    assert code == 3
    assert "holds no reference to compare with" in err
    assert "python -m ops.accept" in err


def test_reference_of_another_contract_is_compared_on_what_both_have(drift, contract):
    gone = rename_columns([category_of(contract)])

    code, out, _ = drift()

    assert code == 0
    assert f"The reference has old {gone[0]}, the contract has not." in out
    assert f"The reference was made without {gone[0]}." in out


def test_reference_of_quite_another_contract_is_said(drift, contract):
    rename_columns([column.name for column in contract.columns])

    code, _, err = drift()

    assert code == 3
    assert "has no column of this contract, only old " in err


def rename_columns(names: list[str]) -> list[str]:
    """Let the reference know these columns by other names; give the names."""
    plain = json.loads(REFERENCE.read_text("utf-8"))
    plain["columns"] = {
        f"old {name}" if name in names else name: column
        for name, column in plain["columns"].items()
    }
    plain["pairs"] = []
    REFERENCE.write_text(json.dumps(plain), "utf-8")
    return names


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--sources", "x"], "unrecognized arguments"),
        (["--evidently", "page.html"], "Evidently is not installed here"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(drift, arguments, words):
    code, out, err = drift(None, *arguments)

    assert (code, out) == (3, "")
    assert words in err
    assert err.count("ERROR: ") == 1
    assert "Traceback" not in err


def test_train_rows_are_those_of_the_model_or_it_is_said_how_to_get_them(place):
    assert len(read_train_rows()) == 800

    rows = pd.read_parquet(TRAIN_ROWS)
    rows[:-1].to_parquet(TRAIN_ROWS)
    with pytest.raises(ValueError, match=r"does not hold the rows that model \w+ of models/final"):
        read_train_rows()
    rows.drop(columns=rows.columns[0]).to_parquet(TRAIN_ROWS)
    with pytest.raises(ValueError, match="`dvc checkout`, or make both anew: make repro"):
        read_train_rows()
    TRAIN_ROWS.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="cannot be read: "):
        read_train_rows()
    TRAIN_ROWS.unlink()
    with pytest.raises(ValueError, match=r"`dvc pull data/split/train\.parquet`"):
        read_train_rows()
    shutil.rmtree("models/final")
    with pytest.raises(ValueError, match="Run `make repro` to make a model"):
        read_train_rows()

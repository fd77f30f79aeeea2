"""Evidently's page on rows beside those that the model was trained on; Evidently is optional."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pyarrow as pa

from contract.artifact import FINAL, load_model
from contract.encoding import encode
from contract.features import PREDICTION, Contract
from contract.predictions.privacy import HASHED
from contract.predictions.read import Reader, Window
from ops.monitor.inputs import features_of
from ops.predictions.command import CommandError
from ops.train_rows import read_train_rows
from ops.whole_file import write_whole

MOST_ROWS = 100_000  # of a log, the newest


def expect_evidently() -> None:
    """Raise CommandError that says how to get Evidently, where it is not installed."""
    if find_spec("evidently") is None:
        raise CommandError(
            "Evidently is not installed here. It needs an older pandas than the pipeline, hence an "
            "environment of its own: set it up with `make evidently`, and run this command anew "
            "by .venv-evidently/bin/python"
        )


def write_page_of_log(path: Path, reader: Reader, window: Window, folder: Path) -> list[str]:
    """Write the page on logged features and predictions; give what it leaves out, in sentences."""
    reference, model = read_train_rows(folder), load_model(folder)
    contract = model.manifest.contract
    y_pred = model.predict(encode(reference, contract)).prediction
    last = min(window.last or MOST_ROWS, MOST_ROWS)
    current = _logged(reader.batches(replace(window, last=last)), contract)
    notes = _write(path, reference.assign(**{PREDICTION: y_pred}), current, contract)
    if len(current) == MOST_ROWS:
        notes.append(f"Evidently was given the newest {MOST_ROWS:,} rows.")
    return notes


def write_page_of_rows(path: Path, rows: pd.DataFrame, contract: Contract) -> list[str]:
    """Write the page on new rows, features and target; give what it leaves out, in sentences."""
    return _write(path, read_train_rows(FINAL), rows, contract)


def _logged(batches: Iterable[pa.RecordBatch], contract: Contract) -> pd.DataFrame:
    """Give the features and the prediction of each row; what is stored as a hash is a gap."""
    kinds = {
        feature.name: pa.string() if feature.categories else pa.float64()
        for feature in contract.features
    }
    tables = [
        pa.table(features_of(batch, kinds) | {PREDICTION: batch.column("prediction")})
        for batch in batches
    ]
    if not tables:
        return pd.DataFrame(columns=[*kinds, PREDICTION])
    rows = pa.concat_tables(tables).to_pandas()
    texts = [feature.name for feature in contract.features if feature.categories]
    return rows.assign(
        **{name: rows[name].mask(rows[name].str.startswith(HASHED, na=False)) for name in texts}
    )


def _write(
    path: Path, reference: pd.DataFrame, current: pd.DataFrame, contract: Contract
) -> list[str]:
    """Write the page on the columns that have values on both sides, as Evidently needs them."""
    known = [*(column.name for column in contract.columns), PREDICTION]
    names = [name for name in known if name in reference and name in current]
    used = [name for name in names if reference[name].count() and current[name].count()]
    left_out = [name for name in names if name not in used]
    notes = [f"Evidently leaves out {name}, which has no value on one side." for name in left_out]
    if not used:
        return [f"{path} is not written, as Evidently has no value to compare.", *notes]
    write_whole(path, _html(reference[used], current[used], contract))
    return [f"Evidently's page is {path}.", *notes]


def _html(reference: pd.DataFrame, current: pd.DataFrame, contract: Contract) -> str:
    os.environ["DO_NOT_TRACK"] = "1"  # its server of pages would report to its makers
    texts = [each.name for each in contract.features if each.categories and each.name in current]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports, and of divisions by 0
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        columns = DataDefinition(
            numerical_columns=[name for name in current.columns if name not in texts],
            categorical_columns=texts,
        )
        now, then = (Dataset.from_pandas(rows, columns) for rows in (current, reference))
        return Report([DataDriftPreset()]).run(now, then).get_html_str(as_iframe=False)

"""Read the user's table, whatever its format, and keep the contract's columns as text."""

from pathlib import Path

from contract.figures import write_figures
from contract.params import load_params
from contract.read_table import read_table
from contract.rows import write_rows
from stages.start import start

ROWS = Path("data/interim/rows.parquet")
METRICS = Path("metrics/ingest.json")


def main() -> None:
    params = load_params()

    table = read_table(params.data, params.contract)

    write_rows(table.rows, ROWS)
    write_figures(
        METRICS,
        {
            "n_rows": len(table.rows),
            "n_columns": table.n_columns,
            "n_contract_columns": table.rows.shape[1],
            "format": table.format,
        },
    )


if __name__ == "__main__":
    start(main)

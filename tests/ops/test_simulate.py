import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_score

from ops import simulate

ROOT = Path(__file__).parents[2]
PUBLIC_ROWS = ROOT.parent / "shared" / "data" / "students.csv"
SCORES = ["math_score", "reading_score", "writing_score"]
GROUPS = [
    "gender",
    "race_ethnicity",
    "parental_level_of_education",
    "lunch",
    "test_preparation_course",
]

# Measured on the public table, so that these tests need no file outside the repository.
PUBLIC_FIGURES = {
    "share": {
        "female": 0.518,
        "male": 0.482,
        "group A": 0.089,
        "group B": 0.190,
        "group C": 0.319,
        "group D": 0.262,
        "group E": 0.140,
        "some high school": 0.179,
        "high school": 0.196,
        "some college": 0.226,
        "associate's degree": 0.222,
        "bachelor's degree": 0.118,
        "master's degree": 0.059,
        "standard": 0.645,
        "free/reduced": 0.355,
        "none": 0.642,
        "completed": 0.358,
    },
    "mean": {"math_score": 66.089, "reading_score": 69.169, "writing_score": 68.054},
    "deviation": {"math_score": 15.163, "reading_score": 14.600, "writing_score": 15.196},
    "skew": {"math_score": -0.279, "reading_score": -0.259, "writing_score": -0.289},
    "share_of_100": {"math_score": 0.007, "reading_score": 0.017, "writing_score": 0.014},
    "correlation": {"math, reading": 0.8176, "math, writing": 0.8026, "reading, writing": 0.9546},
    "gap": {  # means of the first of PAIRS minus the second's, in the order of SCORES
        "gender": [-5.095, 7.135, 9.156],
        "lunch": [11.113, 7.001, 7.801],
        "test_preparation_course": [-5.618, -7.360, -9.914],
    },
    "r2_score": {"math_score": 0.8703},
}
PAIRS = {
    "gender": ("female", "male"),
    "lunch": ("standard", "free/reduced"),
    "test_preparation_course": ("none", "completed"),
}


def measure(rows: pd.DataFrame) -> dict[str, dict]:
    """Measure on a table the same figures as PUBLIC_FIGURES."""
    shares = pd.concat([rows[column].value_counts(normalize=True) for column in GROUPS])
    scores = rows[SCORES]
    correlations = scores.corr().to_numpy()[[0, 0, 1], [1, 2, 2]]
    means = {column: rows.groupby(column, observed=True)[SCORES].mean() for column in PAIRS}
    return {
        "share": shares.to_dict(),
        "mean": scores.mean().to_dict(),
        "deviation": scores.std().to_dict(),
        "skew": scores.skew().to_dict(),
        "share_of_100": (scores == 100).mean().to_dict(),
        "correlation": dict(zip(PUBLIC_FIGURES["correlation"], correlations, strict=True)),
        "gap": {
            column: (means[column].loc[first] - means[column].loc[second]).tolist()
            for column, (first, second) in PAIRS.items()
        },
        "r2_score": {"math_score": cross_validated_r2(rows)},
    }


def cross_validated_r2(rows: pd.DataFrame) -> float:
    """Predict the math score from the seven other columns by least squares, in 5 folds."""
    X = pd.get_dummies(rows.drop(columns="math_score"), drop_first=True, dtype=float)
    folds = KFold(5, shuffle=True, random_state=0)
    scores = cross_val_score(LinearRegression(), X, rows["math_score"], cv=folds, scoring="r2")
    return float(scores.mean())


def assert_close(measured: dict, expected: dict, tolerances: dict[str, float]) -> None:
    assert set(tolerances) == set(expected)
    for figure, tolerance in tolerances.items():
        assert measured[figure].keys() == expected[figure].keys()
        for name, value in expected[figure].items():
            assert measured[figure][name] == pytest.approx(value, abs=tolerance), (figure, name)


@pytest.fixture(params=["recorded", "file"] if PUBLIC_ROWS.exists() else ["recorded"])
def public(request) -> dict[str, dict]:
    return measure(pd.read_csv(PUBLIC_ROWS)) if request.param == "file" else PUBLIC_FIGURES


def test_recorded_figures_are_those_of_the_public_table(public):
    exact = dict.fromkeys(PUBLIC_FIGURES, 0.0006)

    assert_close(public, PUBLIC_FIGURES, exact)


def test_default_table_resembles_the_public_one(public):
    rows = simulate.simulate(simulate.N_ROWS, simulate.SEED)

    tolerances = {"share": 0.03, "mean": 1, "deviation": 1, "skew": 0.15, "share_of_100": 0.005}
    tolerances |= {"correlation": 0.02, "gap": 1.5, "r2_score": 0.015}
    assert_close(measure(rows), public, tolerances)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_large_table_resembles_the_public_one(public, seed):
    rows = simulate.simulate(100_000, seed)

    tolerances = {"share": 0.005, "mean": 1, "deviation": 1, "skew": 0.1, "share_of_100": 0.006}
    tolerances |= {"correlation": 0.02, "gap": 1, "r2_score": 0.015}
    assert_close(measure(rows), public, tolerances)


@pytest.mark.parametrize("n_rows", [1, 2, 17, 5000])
def test_table_has_the_rows_asked_for_and_only_known_values(n_rows):
    rows = simulate.simulate(n_rows, seed=3)

    assert list(rows.columns) == GROUPS + SCORES
    assert len(rows) == n_rows
    assert not rows.isna().any(axis=None)
    assert set(np.unique(rows[GROUPS].astype(str))) <= set(PUBLIC_FIGURES["share"])
    assert all(dtype.kind == "i" for dtype in rows[SCORES].dtypes)
    assert rows[SCORES].to_numpy().min() >= 0
    assert rows[SCORES].to_numpy().max() <= 100


def test_shares_of_each_column_sum_to_one_and_its_effects_to_zero():
    for column, groups in simulate.GROUPS.items():
        shares = np.array([group.share for group in groups.values()])
        effects = np.array([group.effects for group in groups.values()])
        assert shares.sum() == pytest.approx(1), column
        assert shares @ effects == pytest.approx(np.zeros(3), abs=0.02), column


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    first, again, other = (tmp_path / name for name in ("first.csv", "again.csv", "other.csv"))

    simulate.main(["--rows", "500", "--seed", "5", "--output", str(first)])
    simulate.main(["--rows", "500", "--seed", "5", "--output", str(again)])
    simulate.main(["--rows", "500", "--seed", "6", "--output", str(other)])

    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def test_large_table_has_the_recorded_bytes(tmp_path):
    path = tmp_path / "students.csv"

    simulate.main(["--rows", "50000", "--seed", "1", "--output", str(path)])

    recorded = "4f8f8b3f4f144830523c253dfae97631d167bdff51d9e248f6fd874bebadcdcd"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == recorded


def test_bundled_sample_is_what_the_generator_makes_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    simulate.main([])

    assert (tmp_path / simulate.SAMPLE).read_bytes() == (ROOT / simulate.SAMPLE).read_bytes()


def test_program_makes_the_folder_writes_plain_csv_and_tells_so_in_one_line(tmp_path):
    path = tmp_path / "new" / "folder" / "students.csv"

    command = [sys.executable, "-m", "ops.simulate", "--rows", "7", "--output", str(path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert run.stdout == f"Wrote 7 rows of seed {simulate.SEED} to {path}\n"
    assert run.stderr == ""
    assert path.read_bytes().count(b"\n") == 8
    assert b"\r" not in path.read_bytes()
    assert path.read_text(encoding="utf-8").splitlines()[0] == ",".join(GROUPS + SCORES)
    assert [file.name for file in path.parent.iterdir()] == ["students.csv"]


def test_file_reads_back_as_the_table_that_was_drawn(tmp_path):
    path = tmp_path / "students.csv"
    rows = simulate.simulate(300, seed=4)

    simulate.write(rows, path)

    drawn = rows.astype(dict.fromkeys(GROUPS, "str") | dict.fromkeys(SCORES, "int64"))
    pd.testing.assert_frame_equal(pd.read_csv(path, keep_default_na=False), drawn)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--rows", "0"], "--rows is 0, expected 1 or more"),
        (["--rows", "10"], "--output is missing; data/sample/students.csv holds 1000 rows"),
        (["--rows", "-5"], "--rows is -5, expected 1 or more"),
        (["--rows", "many"], "argument --rows: invalid int value: 'many'"),
        (["--seed", "-1"], "--seed is -1, expected 0 or more"),
        (["--output", "."], "--output is ., which is no file"),
    ],
)
def test_wrong_argument_is_refused_with_a_sentence_and_nothing_is_written(
    arguments, reason, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit) as refusal:
        simulate.main(arguments)

    assert refusal.value.code == 2
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_former_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "students.csv"
    path.write_text("former")

    def fill_the_disk(self, unfinished, **options):
        Path(unfinished).write_text("half a fi")
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        simulate.main(["--rows", "3", "--output", str(path)])

    assert path.read_text() == "former"
    assert [file.name for file in tmp_path.iterdir()] == ["students.csv"]


def test_importing_does_nothing(tmp_path):
    command = [sys.executable, "-c", "import ops.simulate"]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)

    assert (run.stdout, run.stderr) == (b"", b"")
    assert list(tmp_path.iterdir()) == []

"""Drift: what each effect size tells, how large chance makes it, and where the limits lie."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, ks_2samp

from contract import effect_sizes as effect
from contract.drift import Comparison, compare
from contract.drift_limits import Drift
from contract.features import Contract
from contract.profiler import axes_of, make_profile
from tests.example import AREA, CONTRACT, HEATING, RENT, WITH_GAPS, make_params, make_rows

DRIFT = make_params().drift
N_DRAWS = 400


def compared(
    then: pd.DataFrame,
    now: pd.DataFrame,
    drift: Drift = DRIFT,
    contract: Contract = CONTRACT,
    was: Contract | None = None,
) -> Comparison:
    reference = make_profile(then, axes_of(was or contract))
    return compare(reference, make_profile(now, axes_of(contract, reference)), drift)


def value(comparison: Comparison, subject: str, measure: str) -> float:
    found = [f for f in comparison.measured if (f.subject, f.measure) == (subject, measure)]
    assert len(found) == 1
    return found[0].value


counts = st.lists(st.integers(0, 1000), min_size=2, max_size=8).filter(any)


@given(data=st.data())
def test_distances_of_counts_are_0_for_the_same_shares_and_symmetric(data):
    one = np.array(data.draw(counts))
    other = np.array(data.draw(st.permutations(list(one))))

    for distance in (effect.population_stability_index, effect.jensen_shannon_distance):
        assert distance(one, one) == pytest.approx(0, abs=1e-7)
        assert distance(one, other) == pytest.approx(distance(other, one), abs=1e-7)
        assert 0 <= distance(one, other) < np.inf


def test_known_values():
    assert effect.population_stability_index(
        np.array([900_000, 100_000]), np.array([800_000, 200_000])
    ) == pytest.approx(0.1 * np.log(2) + 0.1 * np.log(9 / 8), rel=1e-4)
    assert effect.jensen_shannon_distance(
        np.array([0, 10**9]), np.array([10**9, 0])
    ) == pytest.approx(1, abs=1e-3)
    assert effect.difference_of_means(10, 12, 4) == 0.5
    values = np.array([0.0, 1, 2])
    carried = effect.normalised_wasserstein(values, values, [5, 0, 0], [0, 0, 5], 4)
    assert carried == pytest.approx(0.5)


@pytest.mark.parametrize(("m", "n"), [(1000, 300), (1000, 5000), (400, 400)])
def test_chance_exceeds_the_noise_as_seldom_as_it_says(m, n):
    """Both sides are drawn from one source; of 400 draws about 5 % may exceed."""
    rng, chance = np.random.default_rng(0), 0.05
    exceeded = dict.fromkeys(["psi", "js", "w1", "mean", "gaps", "correlation"], 0)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    values = np.arange(10) + 0.5
    for _ in range(N_DRAWS):
        a, b = rng.multinomial(m, shares), rng.multinomial(n, shares)
        x, y = rng.normal(size=(m, 2)), rng.normal(size=(n, 2))
        u = np.bincount(rng.integers(0, 10, m), minlength=10)
        v = np.bincount(rng.integers(0, 10, n), minlength=10)
        std = np.sqrt(np.average((values - 5) ** 2, weights=u))
        exceeded["psi"] += effect.population_stability_index(a, b) > effect.stability_noise(
            4, m, n, chance
        )
        exceeded["js"] += effect.jensen_shannon_distance(a, b) > effect.shannon_noise(
            4, m, n, chance
        )
        exceeded["w1"] += effect.normalised_wasserstein(
            values, values, u, v, std
        ) > effect.wasserstein_noise(values, u, std, m, n, chance)
        moved = effect.difference_of_means(x[:, 0].mean(), y[:, 0].mean(), x[:, 0].std(ddof=1))
        exceeded["mean"] += abs(moved) > effect.means_noise(m, n, chance)
        exceeded["gaps"] += abs(a[3] / m - b[3] / n) > effect.share_noise(a[3], m, b[3], n, chance)
        then, now = np.corrcoef(x.T)[0, 1], np.corrcoef(y.T)[0, 1]
        exceeded["correlation"] += abs(now - then) > effect.correlation_noise(then, m, n, chance)
    assert max(exceeded.values()) <= 0.08 * N_DRAWS, exceeded
    assert exceeded["w1"] <= 0.02 * N_DRAWS  # an upper bound, as it says
    assert min(exceeded[key] for key in ("psi", "js", "mean", "gaps")) >= 0.02 * N_DRAWS, exceeded


def test_category_that_the_reference_lacks_by_chance_is_below_its_noise_as_often_as_it_says():
    rng, m, n, chance = np.random.default_rng(0), 300, 1000, 0.05
    exceeded = 0
    for share in rng.uniform(0, 0.03, 2000):
        k_then, k_now = rng.binomial(m, share), rng.binomial(n, share)
        exceeded += k_then == 0 and k_now / n > effect.unseen_noise(m, n, chance)
    assert exceeded <= 0.05 * 2000


def test_p_values_and_distances_are_those_of_scipy_within_the_stated_error():
    then, now = make_rows(800), make_rows(400, seed=1).assign(area=lambda r: r["area"] * 1.1)

    comparison = compared(then, now)

    found = comparison.p_values["area"]
    exact = ks_2samp(then["area"], now["area"])
    error = found["kolmogorov_smirnov_error"]
    assert found["kolmogorov_smirnov_distance"] <= exact.statistic + 1e-9
    assert exact.statistic <= found["kolmogorov_smirnov_distance"] + error
    assert 0 <= error < 0.1
    crossed = [rows["heating"].value_counts().sort_index() for rows in (then, now)]
    assert comparison.p_values["heating"]["chi_square_p"] == pytest.approx(
        chi2_contingency(np.array(crossed)).pvalue, abs=1e-5
    )


def test_finding_names_columns_measure_value_and_limit_and_the_greatest_excess_comes_first():
    now = make_rows(1000, seed=1).assign(area=lambda rows: rows["area"] / 3)

    comparison = compared(make_rows(1000), now)

    found = comparison.findings("fail")
    assert {finding.columns for finding in found} == {("area",)}
    measures = [finding.measure for finding in found]
    assert measures[0] == "population_stability_index"
    assert {"difference_of_means", "wasserstein_distance"} <= set(measures)
    mean = next(finding for finding in found if finding.measure == "difference_of_means")
    assert mean.value < -mean.limit == -0.35
    assert mean.detail.startswith("mean 1")


def test_same_rows_and_mild_noise_are_no_drift():
    rows = make_rows(1000)
    noise = np.random.default_rng(0).normal(0, 4, 1000)

    for now in (rows, rows.assign(area=rows["area"] + noise), make_rows(1000, seed=3)):
        assert compared(rows, now).findings("fail") == []


def test_with_few_rows_on_either_side_what_would_fail_only_warns():
    few, many = make_rows(100), make_rows(1000)
    for then, now in ((few, many), (many, few)):
        found = compared(then, now.assign(area=now["area"] / 3)).findings()
        assert {finding.action for finding in found} == {"warn"}
        assert "area" in {finding.subject for finding in found}


def test_limit_in_force_is_never_below_what_chance_reaches():
    drift = DRIFT.model_copy(update={"columns": make_params(NO_LIMIT).drift.columns, "min_rows": 1})

    for finding in compared(make_rows(100), make_rows(100, seed=1), drift).measured:
        if finding.subject == "area":
            assert finding.limits["warn"] > 0, finding


NO_LIMIT = {
    "drift.columns": {
        "area": {
            measure: {"warn": 0, "fail": 0}
            for measure in (
                "population_stability_index",
                "jensen_shannon_distance",
                "wasserstein_distance",
                "difference_of_means",
                "change_of_gaps",
            )
        }
    }
}


def test_limits_of_a_column_replace_those_of_its_kind_and_of_its_pairs():
    now = make_rows(1000).assign(area=lambda rows: rows["area"] + 25)
    loose = {"warn": None, "fail": None}
    measures = ["population_stability_index", "jensen_shannon_distance"]
    measures += ["wasserstein_distance", "difference_of_means"]
    of_column = {"area": dict.fromkeys(measures, loose)}
    of_pair = {"area": of_column["area"] | {"difference_of_pair": loose}}

    def subjects(columns: dict) -> set[str]:
        drift = make_params({"drift.columns": columns}).drift
        return {finding.subject for finding in compared(make_rows(1000), now, drift).findings()}

    assert "area" in subjects({})
    assert subjects(of_column) == {"area - rooms"}
    assert subjects(of_pair) == set()


def test_swapped_columns_are_told_by_their_pair_alone():
    features = [AREA, AREA | {"name": "plot"}]
    contract = Contract.model_validate({"target": RENT, "features": features})
    rng = np.random.default_rng(0)
    area = rng.normal(100, 20, 1000)
    rows = pd.DataFrame({"area": area, "plot": area + rng.normal(3, 5, 1000)})
    rows["rent"] = rng.normal(900, 90, 1000)

    swapped = rows.rename(columns={"area": "plot", "plot": "area"})
    found = compared(rows, swapped, contract=contract).findings("fail")

    assert [(f.subject, f.measure) for f in found] == [("area - plot", "difference_of_pair")]


def test_unseen_categories_are_named_whether_the_contract_lists_them_or_not():
    then = make_rows(1000)
    then["heating"] = then["heating"].replace("electric", "gas")
    now = then.assign(heating=then["heating"].where(np.arange(1000) % 20 > 0, "coal"))
    now = now.assign(heating=now["heating"].where(np.arange(1000) % 20 != 1, "electric"))

    comparison = compared(then, now)

    assert value(comparison, "heating", "unseen_share") == pytest.approx(0.1)
    told = [f.detail for f in comparison.findings("fail") if f.measure == "unseen_share"]
    assert told == ["coal, electric"]


def test_gaps_that_came_or_went_are_told():
    contract = Contract.model_validate(WITH_GAPS)
    then = make_rows(1000, contract=contract)
    for now in (then.assign(area=then["area"].fillna(9)), then.assign(area=np.nan)):
        found = compared(then, now, contract=contract).findings("fail")
        assert ("area", "change_of_gaps") in {(f.subject, f.measure) for f in found}


def test_column_without_a_value_is_said_and_one_row_is_no_drift():
    rows, empty = make_rows(600), make_rows(600).assign(area=np.nan, heating=None)

    assert compared(rows, empty).notes == (
        "area has no value in the rows.",
        "heating has no value in the rows.",
    )
    assert compared(empty, rows).notes == (
        "area has no value in the reference.",
        "heating has no value in the reference.",
    )
    assert compared(rows, rows.head(1)).findings() == []
    assert compared(rows.head(1), rows).findings() == []
    assert compared(rows.head(0), rows).findings() == []
    assert compared(rows, rows.head(0)).findings() == []


def test_constant_columns_are_compared_and_any_change_of_them_is_told():
    rows = make_rows(600).assign(area=50.0, heating="gas")

    assert compared(rows, rows).findings() == []
    found = compared(rows, rows.assign(area=51.0)).findings("fail")
    assert {finding.subject for finding in found} == {"area"}
    found = compared(rows, rows.assign(heating="district")).findings("fail")
    assert {finding.subject for finding in found} == {"heating"}


def test_reference_of_another_contract_is_compared_on_what_both_have_and_the_rest_is_said():
    was = Contract.model_validate({"target": RENT, "features": [AREA, HEATING]})
    now = make_rows(600).assign(area=lambda rows: rows["area"] * 2)

    comparison = compared(make_rows(600, contract=was), now, was=was)

    assert "area" in {finding.subject for finding in comparison.findings("fail")}
    assert comparison.notes == ("The reference was made without rooms, condition.",)


@pytest.mark.parametrize("seed", range(3))
def test_all_figures_are_finite_whatever_is_compared(seed):
    rng = np.random.default_rng(seed)
    tables = [make_rows(n).assign(area=area) for n in (0, 1, 2, 40) for area in (np.nan, 0, 9.0)]
    tables += [make_rows(40).assign(rooms=rng.integers(1, 13, 40))]
    for then in tables:
        for now in tables:
            figures = [(f.value, *f.limits.values()) for f in compared(then, now).measured]
            json.loads(json.dumps(figures), parse_constant=pytest.fail)


def test_shipped_limits_name_every_measure():
    measured = {f.measure for f in compared(make_rows(600), make_rows(600, seed=1)).measured}

    limits = DRIFT.limits
    assert measured == {*limits.numeric, *limits.nominal, *limits.ordinal, *limits.pairs}

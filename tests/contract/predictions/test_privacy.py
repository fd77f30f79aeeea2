"""What of the features is stored follows the setting, by row and by table alike."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.encoding import row_encoder
from contract.predictions.privacy import HASHED, Privacy, PrivacyError
from serve.logged import as_json
from tests.contract.strategies import contracts, rows_of
from tests.example import CONTRACT

KEY = "sixteen letters!"
ROW = {"area": 72.0, "rooms": 3, "heating": "gas", "condition": None}


def test_all_is_stored_unless_the_setting_says_otherwise():
    assert Privacy("on", "", CONTRACT).of_row(ROW) == ROW
    assert Privacy("off", "", CONTRACT).of_row(ROW) == {}


def test_named_features_are_hashed_and_the_others_stay():
    stored = Privacy("area, heating", KEY, CONTRACT).of_row(ROW)

    assert (stored["rooms"], stored["condition"]) == (3, None)
    assert stored["area"].startswith(HASHED)
    assert stored["heating"].startswith(HASHED)


def test_hashes_show_equal_values_and_gaps_and_nothing_else():
    privacy = Privacy("hash", KEY, CONTRACT)

    one, same, other = (privacy.of_row(ROW | {"area": area}) for area in (72.0, 72, 73))

    assert one == same
    assert one["area"] != other["area"]
    assert one["condition"] is None
    assert one["rooms"] != privacy.hasher("area")(3)  # the name is part of it
    assert Privacy("hash", KEY[::-1], CONTRACT).of_row(ROW)["area"] != one["area"]


@pytest.mark.parametrize("policy", ["hash", "heating"])
@pytest.mark.parametrize("key", ["", "fifteen letters"])
def test_hashes_need_a_secret(policy, key):
    with pytest.raises(PrivacyError, match=f"PREDICTION_LOG_KEY has {len(key)} characters"):
        Privacy(policy, key, CONTRACT)


def test_setting_of_no_word_is_no_reason_to_store_in_clear():
    with pytest.raises(PrivacyError, match="PREDICTION_LOG_FEATURES is ','"):
        Privacy(",", KEY, CONTRACT)


def test_misspelt_name_is_no_reason_to_store_in_clear():
    with pytest.raises(PrivacyError, match="the model has no heatin, only area, rooms, heating"):
        Privacy("area heatin", KEY, CONTRACT)


@given(data=st.data())
def test_tables_are_stored_as_their_rows_would_be(data):
    contract = data.draw(contracts())
    rows = data.draw(st.lists(rows_of(contract), min_size=1, max_size=5))
    names = data.draw(st.sets(st.sampled_from(contract.names())))
    is_word = all(not {" ", ","} & {*name} and name.split() == [name] for name in names)
    policy = " ".join(sorted(names)) if names and is_word else "hash"
    privacy = Privacy(policy, KEY, contract)
    values = np.concatenate([row_encoder(contract)(row) for row in rows]).astype(np.float64)
    exact = [[row[name] for name in contract.names()] for row in rows]
    for place, feature in enumerate(contract.features):
        if not feature.categories:  # what a file brings is not rounded to float32
            values[:, place] = [np.nan if row[place] is None else row[place] for row in exact]

    stored = [json.loads(text) for text in as_json(values, contract, privacy).to_pylist()]

    in_order = [{name: row[name] for name in contract.names()} for row in rows]
    assert stored == [privacy.of_row(row) for row in in_order]

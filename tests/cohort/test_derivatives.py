"""Derivatives: hashes, names, files, and what is current."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json

import pandas as pd
import pytest

from mne_deepsif.cache import hash_file
from mne_deepsif.cohort.derivatives import (
    check_names,
    entity,
    is_current,
    make_key,
    read_record,
    write_description,
    write_table,
)


def test_key_depends_on_all_its_parts():
    keys = {
        make_key({"a": "1"}, {"tmin": 0}, "w"),
        make_key({"a": "2"}, {"tmin": 0}, "w"),
        make_key({"b": "1"}, {"tmin": 0}, "w"),
        make_key({"a": "1"}, {"tmin": 1}, "w"),
        make_key({"a": "1"}, {"tmin": 0}, "v"),
    }
    assert len(keys) == 5


def test_names_of_conditions():
    assert entity("spike/left 2") == "spikeleft2"
    check_names(["a", "b"])
    for one, other in (("a/b", "ab"), ("a", "a")):
        with pytest.raises(ValueError, match=f"'{one}' and '{other}' would have the"):
            check_names([one, other])
    with pytest.raises(ValueError, match="neither letters nor digits"):
        entity("///")


def test_tables_and_description(tmp_path):
    write_table(tmp_path / "x.tsv", pd.DataFrame(dict(a=[1.5, None], b=["u", "v"])))
    assert (tmp_path / "x.tsv").read_text() == "a\tb\n1.5\tu\nn/a\tv\n"
    write_description(tmp_path, tmp_path, "command", dict(Name="w", SHA256="0"))
    found = json.loads((tmp_path / "dataset_description.json").read_text())
    assert found["DatasetType"] == "derivative"
    assert found["GeneratedBy"][0]["Description"] == "command"
    assert found["GeneratedBy"][0]["Weights"]["SHA256"] == "0"
    assert {"mne", "torch"} <= {one["Name"] for one in found["GeneratedBy"]}


def test_what_is_current(tmp_path):
    (tmp_path / "out").write_bytes(b"abc")
    record = dict(Key="k", Outputs={"out": hash_file(tmp_path / "out")})
    assert is_current(record, "k", tmp_path)
    assert not is_current(record, "other", tmp_path)
    assert not is_current({}, "k", tmp_path)
    (tmp_path / "out").write_bytes(b"xyz")
    assert not is_current(record, "k", tmp_path)
    (tmp_path / "out").unlink()
    assert not is_current(record, "k", tmp_path)


@pytest.mark.parametrize("text", ("", "{", "[1]"))
def test_a_damaged_record_is_not_current(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    assert not is_current(read_record(tmp_path / "record.json"), "k", tmp_path)
    assert read_record(tmp_path / "none.json") == {}

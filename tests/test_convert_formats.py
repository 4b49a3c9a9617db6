"""Evaluation sees the same words, whichever format holds a benchmark."""

import collections

import pytest
from pictures import write_lmdb

from benchmarks import reading
from data_prep.convert import convert
from robustscanner_jax.data.sources import open_source


def elements(path):
    source = open_source(path)
    return [source[i] for i in range(len(source))]


def test_the_real_words_are_the_same_through_list_lmdb_and_array_record(
    tmp_path, shared
):
    lines = shared("real_words/dev.tsv").read_text(encoding="utf-8").splitlines()
    sets = collections.defaultdict(list)
    for line in lines:
        sets[line.split("/")[0]].append(line)
    assert len(sets) == 3 and len(lines) == 1162
    for name, rows in sets.items():
        listed = tmp_path / name / "labels.tsv"
        listed.parent.mkdir()
        listed.write_text("\n".join(rows) + "\n", encoding="utf-8")
        root = shared("real_words")
        report = convert(listed, tmp_path / f"{name}_ar", images=root, processes=1)
        assert report["in"] == report["out"] == len(rows)
        source = open_source(listed, images=root)
        expected = [source[i] for i in range(len(source))]
        assert elements(tmp_path / f"{name}_ar") == expected
        pairs = [(element["image"], element["text"]) for element in expected]
        database = write_lmdb(tmp_path / f"{name}_lmdb", pairs)
        assert [(e["image"], e["text"]) for e in elements(database)] == pairs
        # And the way back: what was read from an LMDB converts to the same words.
        convert(database, tmp_path / f"{name}_back", processes=1)
        back = elements(tmp_path / f"{name}_back")
        assert [(e["image"], e["text"]) for e in back] == pairs


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 0, 3], [2], [1, 2, 4]])
def test_the_benchmark_reads_what_it_was_asked_for(tmp_path, order):
    from pictures import png, write_list

    listed = write_list(tmp_path / "in", [(png(i), f"w{i}") for i in range(5)])
    convert(listed, tmp_path / "out", processes=1, shards=2)
    source = open_source(tmp_path / "out")
    reads = (reading.one_by_one, reading.in_batches)
    assert [read(source, order, 2) for read in reads] == [len(order)] * 2
    formats = {str(n): (read, listed, [listed]) for n, read in enumerate(reads)}
    found = reading.rates(formats, {"asked": order}, batch=2, repeats=3)
    assert all(rates.shape == (3, 2) and rates.min() > 0 for rates in found.values())

"""Many records in one call: the same elements, and damage that stays by itself."""

import collections
import pickle
from pathlib import Path

import numpy as np
import pytest
from dataset_files import WORDS, write_dataset
from helpers import CHARSET, MAX_LEN
from hypothesis import given, settings
from hypothesis import strategies as st
from training import RULE, ListSource, draw_word, encode

from robustscanner_jax.data import shard_source
from robustscanner_jax.data.pipeline import (
    ReadBatch,
    evaluation_batches,
    training_batches,
)
from robustscanner_jax.data.reads import BatchSource, read_elements
from robustscanner_jax.data.records import Record, RecordWriter, shard_path, write_index
from robustscanner_jax.data.shard_source import ShardSource
from robustscanner_jax.data.sources import open_source
from robustscanner_jax.data.transforms import Prepare, Problem

LETTERS = "abcdefgh"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, [f"w{i}" for i in range(40)], num_shards=7)
    return open_source(folder)


def write_readable(folder, count=40, num_shards=4):
    """Writes words that can be decoded; returns them in the order of the source."""
    words = [LETTERS[i % 8] + LETTERS[i // 8] for i in range(count)]
    for shard in range(num_shards):
        with RecordWriter(shard_path(folder, "mj", shard, num_shards)) as writer:
            for word in words[shard::num_shards]:
                writer.write(Record(word, encode(draw_word(word)), word))
    settings = dict(name="mj", count=count, num_shards=num_shards)
    write_index(folder, charset=LETTERS, source={}, **settings)
    return [word for shard in range(num_shards) for word in words[shard::num_shards]]


def damage(path, mark: bytes):
    """Overwrites what follows `mark`, which stands in the file once."""
    content = Path(path).read_bytes()
    assert content.count(mark) == 1
    start = content.index(mark)
    Path(path).write_bytes(content[:start] + b"\xaa" * 8 + content[start + 8 :])


@given(st.lists(st.integers(0, 39)), st.sampled_from([0.0, 1e-6, 60.0]))
@settings(max_examples=50)
def test_records_read_together_are_those_read_one_by_one(dataset, indices, waited):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_source, "_WAITED", waited)
        assert dataset.read_many(indices) == [dataset[i] for i in indices]
        assert read_elements(dataset, indices) == [dataset[i] for i in indices]


def test_a_call_beyond_the_end_is_an_index_error(dataset):
    for indices in ([0, 40], [-1]):
        with pytest.raises(IndexError, match="expected records below 40"):
            dataset.read_many(indices)


@pytest.mark.parametrize("waited", [0.0, 60.0])
def test_a_damaged_record_is_lost_alone_wherever_it_stands(
    tmp_path, monkeypatch, waited
):
    monkeypatch.setattr(shard_source, "_WAITED", waited)
    words = [f"word{i}" * 20 for i in range(30)]
    write_dataset(tmp_path, words, num_shards=3)
    for lost in (0, 13, 29):
        path = shard_path(tmp_path, "mj", lost % 3, 3)
        damage(path, f"mj/{lost}".encode() + b"\xa5image")
    source = open_source(tmp_path)
    found = read_elements(source, range(30))
    errors = [one for one in found if "error" in one]
    assert len(errors) == 3 and len(found) == 30
    assert all(
        "ValueError: " in e["error"] and ", record " in e["error"] for e in errors
    )
    kept = {one["text"] for one in found if "error" not in one}
    assert kept == {word for i, word in enumerate(words) if i not in (0, 13, 29)}
    singly = [read_elements(source, [i])[0] for i in range(30)]
    assert singly == found


@pytest.mark.parametrize("waited", [0.0, 60.0])
def test_a_shard_that_vanishes_loses_its_own_records(tmp_path, monkeypatch, waited):
    monkeypatch.setattr(shard_source, "_WAITED", waited)
    write_dataset(tmp_path, WORDS, num_shards=4)
    source = open_source(tmp_path)
    Path(shard_path(tmp_path, "mj", 1, 4)).unlink()
    found = read_elements(source, range(8))
    assert [i for i, one in enumerate(found) if "error" in one] == [2, 3]
    assert "mj-00001-of-00004" in found[2]["error"]


def test_any_failure_of_a_source_becomes_an_element_that_names_the_place():
    good = {"id": "a", "image": b"", "text": "x"}
    source = ListSource([good, OSError("disk gone")], "mine")
    lost = {"id": "mine[1]", "error": "OSError: disk gone"}
    assert read_elements(source, [1, 0]) == [lost, good]
    source.read_many = lambda indices: 1 / 0
    assert read_elements(source, [0, 1]) == [good, lost]
    source.read_many = lambda indices: [good]  # whatever was asked for
    assert read_elements(source, [0, 1]) == [good, lost]
    assert read_elements(source, []) == []


@pytest.mark.parametrize("reads_many", [False, True])
def test_only_a_source_that_reads_many_is_a_batch_source(dataset, reads_many):
    source = dataset if reads_many else ListSource([dataset[0]])
    assert isinstance(source, BatchSource) == reads_many


def batches_of(sources, count=8, batch_size=10, **changes):
    arguments = dict(
        weights=[1.0] * len(sources), prepare=Prepare(CHARSET, RULE, MAX_LEN, 1.0),
        batch_size=batch_size, seed=3, num_workers=0,
    )  # fmt: skip
    found = iter(training_batches(sources, **(arguments | changes)))
    return [next(found) for _ in range(count)]


def test_a_batch_asks_each_source_once(tmp_path, monkeypatch):
    write_readable(tmp_path)
    source = open_source(tmp_path)
    calls, read_many = [], ShardSource.read_many
    monkeypatch.setattr(
        ShardSource,
        "read_many",
        lambda self, wanted: calls.append(len(wanted)) or read_many(self, wanted),
    )
    list(evaluation_batches(source, rule=RULE, batch_size=40))
    assert sorted(calls) == [8, 32]
    calls.clear()
    state = np.random.Philox().state
    references = [(i % 2, i, state) for i in (*range(40), 0, 1)]
    read_batch = ReadBatch([source, source], Prepare(CHARSET, RULE, MAX_LEN))
    assert len(read_batch(references)["id"]) == 42
    assert calls == [20, 20]


@pytest.mark.parametrize("waited", [0.0, 60.0])
def test_a_slow_disk_changes_the_number_of_calls_and_nothing_else(
    dataset, monkeypatch, waited
):
    monkeypatch.setattr(shard_source, "_WAITED", waited)
    again = pickle.loads(pickle.dumps(dataset))
    singly, together = collections.Counter(), collections.Counter()
    read_one, read_together = ShardSource._read_one, ShardSource._read_together

    def counted(self, i):
        singly[i] += 1
        return read_one(self, i)

    def counted_together(self, shard, wanted):
        together[shard] += 1
        return read_together(self, shard, wanted)

    monkeypatch.setattr(ShardSource, "_read_one", counted)
    monkeypatch.setattr(ShardSource, "_read_together", counted_together)
    order = [*range(39, -1, -1), 7]
    found = again.read_many(order)
    assert [one["text"] for one in found] == [dataset[i]["text"] for i in order]
    if waited:
        assert singly.total() == 41 + 41 and not together
    else:  # the first four, then the seven shards in threads
        assert singly.total() == 4 + 41 and set(together.values()) == {1}
        assert len(together) == 7


def test_batches_are_the_same_from_a_source_that_reads_one_by_one(tmp_path):
    write_readable(tmp_path)
    source = open_source(tmp_path)
    listed = ListSource([source[i] for i in range(40)])
    for one, other in zip(batches_of([source]), batches_of([listed]), strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_record_is_one_filler_row_of_a_batch(tmp_path, num_workers):
    words = write_readable(tmp_path)
    damage(shard_path(tmp_path, "mj", 2, 4), b"\xa2id\xa2" + words[25].encode())
    source = open_source(tmp_path)
    found = batches_of([source], count=4, num_workers=num_workers)
    ids = [name for batch in found for name in batch["id"].tolist()]
    problems = [int(p) for batch in found for p in batch["problem"]]
    assert sorted(ids) == sorted([*words[:25], *words[26:], "mj[25]"])
    assert problems.count(Problem.NONE) == 39
    assert problems[ids.index("mj[25]")] == Problem.UNREADABLE

"""The ArrayRecord payload, shards and the index."""

import json
import os

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.data.records import (
    FORMAT_VERSION,
    Record,
    RecordWriter,
    decode_record,
    encode_record,
    open_shard,
    read_index,
    shard_path,
    write_index,
)

# Text without lone surrogates, which UTF-8 cannot hold.
texts = st.text(st.characters(exclude_categories=["Cs"]))
records = st.builds(Record, id=texts, image=st.binary(max_size=300), text=texts)


def write_dataset(folder, counts=(2, 3), name="words"):
    for shard, count in enumerate(counts):
        path = shard_path(folder, name, shard, len(counts))
        with RecordWriter(path) as writer:
            for i in range(count):
                writer.write(Record(f"{name}/{shard}-{i}", b"image%d" % i, f"w{i}"))
    write_index(
        folder,
        name=name,
        count=sum(counts),
        num_shards=len(counts),
        charset="w0123456789",
        source={"seed": 7},
    )


@given(records)
def test_a_record_survives_encoding_and_decoding(record):
    assert decode_record(encode_record(record)) == record


@given(records, st.data())
def test_a_record_cut_anywhere_is_a_named_error(record, data):
    payload = encode_record(record)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(ValueError, match="damaged record"):
        decode_record(payload[:cut])


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_but_value_error(payload):
    try:
        decode_record(payload)
    except ValueError as error:
        assert "record" in str(error)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "0 bytes: not msgpack"),
        (msgpack.packb([1, 2]), "expected a map, got list"),
        (msgpack.packb({"id": "a"}), "version None is not supported, expected 1"),
        (msgpack.packb({"v": 2}), "version 2 is not supported"),
        (
            msgpack.packb({"v": 1, "id": "a", "image": b""}),
            "'a': .*str, got no such field",
        ),
        (
            msgpack.packb({"v": 1, "id": "a", "image": "x", "text": ""}),
            "'a': expected image of type bytes, got str",
        ),
        (msgpack.packb({"v": 1, "id": "a", "image": b"", "text": ""}) + b"x", "Extra"),
    ],
)
def test_each_kind_of_damage_is_named(payload, message):
    with pytest.raises(ValueError, match=message):
        decode_record(payload)


def test_a_field_of_the_wrong_type_is_refused_before_it_is_written():
    with pytest.raises(TypeError, match="expected image of type bytes, got str"):
        encode_record(Record("a", "not bytes", "text"))
    with pytest.raises(ValueError, match="not valid Unicode"):
        encode_record(Record("a", b"", "\ud800"))


def test_shard_paths_follow_the_usual_pattern(tmp_path):
    expected = os.path.join(tmp_path, "mj-00003-of-00016.array_record")
    assert shard_path(tmp_path, "mj", 3, 16) == expected
    with pytest.raises(ValueError, match="shard < num_shards, got 16 of 16"):
        shard_path(tmp_path, "mj", 16, 16)
    with pytest.raises(ValueError, match="without a slash"):
        shard_path(tmp_path, "a/b", 0, 1)


def test_a_dataset_reads_back_as_it_was_written(tmp_path):
    write_dataset(tmp_path)
    index = read_index(tmp_path)
    assert index["format_version"] == FORMAT_VERSION
    assert (index["name"], index["count"], index["num_shards"]) == ("words", 5, 2)
    assert index["shard_counts"] == [2, 3]
    assert index["charset"] == "w0123456789"
    assert index["source"] == {"seed": 7}
    reader = open_shard(shard_path(tmp_path, "words", 1, 2))
    assert decode_record(reader.read([2])[0]) == Record("words/1-2", b"image2", "w2")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3 and not any("tmp" in name for name in names)


def test_a_failed_shard_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a-00000-of-00001.array_record"
    with pytest.raises(KeyError), RecordWriter(path) as writer:
        writer.write(Record("a", b"x", "y"))
        raise KeyError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_shard_leaves_the_earlier_one_in_place(tmp_path):
    path = tmp_path / "a-00000-of-00001.array_record"
    with RecordWriter(path) as writer:
        writer.write(Record("first", b"x", "y"))
    with pytest.raises(KeyError), RecordWriter(path) as writer:
        raise KeyError("stop")
    assert decode_record(open_shard(path).read([0])[0]).id == "first"


def test_writing_outside_of_the_with_block_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="outside of the `with` block"):
        RecordWriter(tmp_path / "a").write(Record("a", b"", ""))


def test_a_full_disk_is_an_os_error_and_leaves_no_shard(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    writer = RecordWriter(tmp_path / "a.array_record")
    writer._temporary.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"a\.array_record: write failed"), writer:
        writer.write(Record("a", b"x" * 1000, "y"))
    assert list(tmp_path.iterdir()) == []


def test_the_index_refuses_a_count_that_the_shards_do_not_hold(tmp_path):
    write_dataset(tmp_path)
    (tmp_path / "index.json").unlink()
    arguments = dict(name="words", num_shards=2, charset="", source={})
    with pytest.raises(ValueError, match="hold 5 records, expected 6"):
        write_index(tmp_path, count=6, **arguments)
    assert not (tmp_path / "index.json").exists()
    with pytest.raises(FileNotFoundError, match="words-00000-of-00003"):
        write_index(tmp_path, count=5, **(arguments | {"num_shards": 3}))


def test_settings_that_do_not_fit_json_leave_no_index(tmp_path):
    write_dataset(tmp_path, counts=(1,))
    before = (tmp_path / "index.json").read_bytes()
    with pytest.raises(TypeError):
        write_index(
            tmp_path,
            name="words",
            count=1,
            num_shards=1,
            charset="",
            source={"set": {1}},
        )
    assert (tmp_path / "index.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_without_an_index_is_called_unfinished(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a dataset folder, or writing it"):
        read_index(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 9}, "version 9 is not supported, expected 1"),
        ({"count": "5"}, "expected count of type int, got '5'"),
        ({"count": 6}, r"\[2, 3\] do not add up to 6 records in 2 shards"),
        ({"num_shards": 3}, "5 records in 3 shards"),
        ({"charset": None}, "expected charset of type str"),
        ({"shard_counts": [2, "3"]}, "expected counts of records"),
        ({"count": True}, "expected count of type int, got True"),
    ],
)
def test_a_damaged_index_is_a_named_error(tmp_path, change, message):
    write_dataset(tmp_path)
    path = tmp_path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        read_index(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_an_index_that_is_no_json_object_is_a_named_error(tmp_path, content):
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"index\.json: (damaged )?index"):
        read_index(tmp_path)


def test_a_shard_truncated_anywhere_is_refused_by_name(tmp_path):
    path = tmp_path / "a-00000-of-00001.array_record"
    with RecordWriter(path) as writer:
        for i in range(300):
            writer.write(Record(f"a/{i}", os.urandom(1000), "word"))
    whole = path.read_bytes()
    for part in range(20):
        size = len(whole) * part // 20 + (part == 0)
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"{path.name}: .*of {size} bytes"):
            open_shard(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="damaged or truncated"):
        open_shard(path)


def test_a_shard_that_is_not_there_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.array_record"):
        open_shard(tmp_path / "none.array_record")

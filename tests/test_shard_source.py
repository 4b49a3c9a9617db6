"""ArrayRecord shards: datasets of this project and of TensorFlow Datasets."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from array_record.python import array_record_module
from dataset_files import WORDS, texts, write_dataset, write_shards

from robustscanner_jax.data.records import Record, encode_record, shard_path
from robustscanner_jax.data.sources import open_source


def test_a_dataset_folder_is_read_shard_by_shard(tmp_path):
    write_dataset(tmp_path)
    source = open_source(tmp_path)
    assert (source.name, len(source)) == ("mj", len(WORDS))
    assert texts(source) == [WORDS[i] for i in (0, 3, 6, 1, 4, 7, 2, 5)]
    assert source[3] == {"id": "mj/1", "image": b"bytes of 1", "text": "two words"}


def test_a_wildcard_opens_shards_without_an_index(tmp_path):
    write_shards(tmp_path)
    assert len(open_source(tmp_path / "mj-*")) == len(WORDS)
    assert len(open_source(tmp_path / "*-00000-of-*.array_record")) == 3
    source = open_source(tmp_path / "mj-00001-of-00003.array_record")
    assert (source.name, len(source)) == ("mj", 3)
    with pytest.raises(FileNotFoundError, match="no file matches"):
        open_source(tmp_path / "synth-*")
    (tmp_path / "other.txt").touch()
    with pytest.raises(ValueError, match=r"expected a wildcard of \.array_record"):
        open_source(tmp_path / "*")


def test_shards_without_an_index_are_an_unfinished_dataset(tmp_path):
    write_shards(tmp_path)
    with pytest.raises(ValueError, match=r"never finished.*\*\.array_record' to read"):
        open_source(tmp_path)


def test_a_missing_shard_and_a_changed_one_are_named(tmp_path):
    write_dataset(tmp_path)
    shutil.copy(shard_path(tmp_path, "mj", 0, 3), shard_path(tmp_path, "mj", 2, 3))
    with pytest.raises(
        ValueError, match=r"mj-00002.*holds 3 records, index\.json says"
    ):
        open_source(tmp_path)
    os.unlink(shard_path(tmp_path, "mj", 1, 3))
    with pytest.raises(ValueError, match=r"mj-00001-of-00003.*missing, and 0 more"):
        open_source(tmp_path)


def test_more_shards_than_files_may_be_open_are_read(tmp_path):
    write_dataset(tmp_path)
    code = """
import resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
from robustscanner_jax.data.shard_source import ShardSource
source = ShardSource("mj", sys.argv[1:] * 30)  # ninety shards
assert len({source[i]["text"] for i in range(len(source))}) > 3
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (130, hard)
# macOS: no upper bound.
asked = []
resource.getrlimit = lambda _: (256, resource.RLIM_INFINITY)
resource.setrlimit = lambda _, limits: asked.append(limits)
ShardSource("mj", sys.argv[1:])
assert asked == [(259, resource.RLIM_INFINITY)]
"""
    paths = [shard_path(tmp_path, "mj", i, 3) for i in range(3)]
    subprocess.run(
        [sys.executable, "-c", code, *paths],
        check=True,
        cwd=Path(__file__).parent.parent,
    )


def test_a_dataset_truncated_anywhere_does_not_open(tmp_path):
    write_dataset(tmp_path)
    path = shard_path(tmp_path, "mj", 1, 3)
    whole = Path(path).read_bytes()
    for part in range(20):
        with open(path, "wb") as file:
            file.write(whole[: len(whole) * part // 20])
        with pytest.raises(ValueError, match=r"mj-00001.*damaged or truncated"):
            open_source(tmp_path)


def test_a_damaged_record_is_named_and_its_neighbours_stay_readable(tmp_path):
    words = [f"word{i}" * 20 for i in range(20)]
    write_dataset(tmp_path, words, num_shards=1)
    path = shard_path(tmp_path, "mj", 0, 1)
    content = Path(path).read_bytes()
    assert content.count(words[7].encode()) == 1
    with open(path, "wb") as file:
        file.write(content.replace(words[7].encode(), b"\0" * len(words[7])))
    source = open_source(tmp_path)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"mj-00000-of-00001.*record 7: .*mismatch"
        ):
            source[7]
    assert [source[i]["text"] for i in (6, 8)] == [words[6], words[8]]


def test_a_payload_of_another_program_is_named(tmp_path):
    path = tmp_path / "x.array_record"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    writer.write(b"\x0a\x05hello")
    writer.write(encode_record(Record("a", b"", "b")))
    writer.close()
    source = open_source(path)
    with pytest.raises(ValueError, match=r"x\.array_record, record 0: damaged record"):
        source[0]
    assert source[1]["text"] == "b"


def test_a_dataset_without_records_is_called_empty(tmp_path):
    write_dataset(tmp_path, words=[])
    with pytest.raises(ValueError, match="the dataset is empty"):
        open_source(tmp_path)


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    tfds = pytest.importorskip("tensorflow_datasets")
    png = bytes.fromhex("89504e470d0a1a0a") + b"not decoded here"

    class Words(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "text": tfds.features.Text(),
                "id": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples(5), "test": self._generate(2)}

        def _generate_examples(self, count):
            yield from self._generate(count)

        def _generate(self, count):
            for i in range(count):
                image = io.BytesIO(png + b"%d" % i)
                yield i, {"image": image, "text": f"wörd{i}", "id": f"id{i}"}

    folder = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    Words(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder / "words" / "1.0.0"


def test_a_tfds_folder_is_read_one_split_at_a_time(tfds_folder):
    source = open_source(f"{tfds_folder}#test")
    assert (source.name, len(source)) == ("words-test", 2)
    found = sorted((source[i]["id"], source[i]["text"]) for i in range(2))
    assert found == [("id0", "wörd0"), ("id1", "wörd1")]
    assert source[0]["image"].startswith(b"\x89PNG")
    again = pickle.loads(pickle.dumps(source))
    assert again[1] == source[1]


def test_a_tfds_folder_of_several_splits_asks_for_one(tfds_folder):
    for path in (tfds_folder, f"{tfds_folder}#dev"):
        with pytest.raises(
            ValueError, match=r"name one of its splits.*'train', 'test'"
        ):
            open_source(path)


@pytest.mark.parametrize(
    ("info", "features", "message"),
    [
        ({"fileFormat": "tfrecord"}, {}, "got 'tfrecord'; build it with file_format"),
        ({"fileFormat": "array_record"}, {"image": {}}, r"image and text, got \['im"),
        ([], {}, "dataset_info.json: expected a JSON object"),
    ],
)
def test_a_tfds_folder_of_another_kind_is_named(tmp_path, info, features, message):
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    features = {"featuresDict": {"features": features}}
    (tmp_path / "features.json").write_text(json.dumps(features))
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path)

"""Small datasets in every format, for tests. Images are bytes that nothing decodes."""

import lmdb

from robustscanner_jax.data.records import Record, RecordWriter, shard_path, write_index

WORDS = ["one", "two words", 'say "hi"', "a,b", "c\\d", "wörd", "", " edge "]


def write_images(folder, count=8):
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"img{i}.png" for i in range(count)]
    for name in names:
        (folder / name).write_bytes(b"bytes of " + name.encode())
    return names


def write_shards(folder, words=WORDS, num_shards=3, name="mj"):
    for shard in range(num_shards):
        with RecordWriter(shard_path(folder, name, shard, num_shards)) as writer:
            for i in range(shard, len(words), num_shards):
                writer.write(Record(f"{name}/{i}", b"bytes of %d" % i, words[i]))


def write_dataset(folder, words=WORDS, num_shards=3, name="mj"):
    write_shards(folder, words, num_shards, name)
    settings = dict(name=name, count=len(words), num_shards=num_shards)
    write_index(folder, charset="", source={}, **settings)


def write_lmdb(folder, words=WORDS, **extra):
    folder.mkdir(parents=True, exist_ok=True)
    entries = {b"num-samples": b"%d" % len(words)}
    for i, word in enumerate(words, 1):
        entries[b"image-%09d" % i] = b"bytes of %d" % i
        entries[b"label-%09d" % i] = word.encode()
    entries.update({key.replace("_", "-").encode(): v for key, v in extra.items()})
    with lmdb.open(str(folder), map_size=1 << 22) as environment:
        with environment.begin(write=True) as transaction:
            for key, value in entries.items():
                if value is not None:
                    transaction.put(key, value)
    (folder / "lock.mdb").unlink()


def texts(source):
    return [source[i]["text"] for i in range(len(source))]

"""Benchmarks to scores: nothing vanishes, and what is unreadable is misread."""

import json

import cv2
import pytest
from pictures import write_list, write_lmdb
from synthetic_fonts import fonts_or_skip
from training import ListSource, encode, noise_image, reader

from data_prep.convert import main as convert_command
from robustscanner_jax import evaluate
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.metrics import PROTOCOLS, NothingToScore


def noise_source(count=11, name="noise", labels=None):
    """Returns noise, labelled with what is read from it unless `labels` are given."""
    images = [noise_image(seed) for seed in range(count)]
    labels = labels or [r.text for r in reader().read([i[..., ::-1] for i in images])]
    return ListSource(
        (
            {"id": f"{name}/{i}", "image": encode(image), "text": label}
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ),
        name,
    )


@pytest.fixture(scope="module")
def source():
    return noise_source()


def read(source, protocol="exact"):
    return evaluate.read_benchmark(reader(), "set", source, protocol=protocol)


def with_damage(source):
    """Returns the source with three of its records damaged, each in its way."""
    elements = [source[i] for i in range(len(source))]
    elements[2] = elements[2] | {"image": b""}
    elements[5] = ValueError("record 5: torn")
    elements[10] = {"id": "ten", "error": "lost", "text": ""}
    return ListSource(elements, source.name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IIIT5K:data/iiit5k", ("IIIT5K", "data/iiit5k")),
        ("dev:C:/words", ("dev", "C:/words")),
        ("r:rendered:easy?seed=2", ("r", "rendered:easy?seed=2")),
    ],
)
def test_a_benchmark_is_a_name_and_the_rest(text, expected):
    assert evaluate.parse_benchmarks([text]) == [expected]


@pytest.mark.parametrize("text", ["", "dev", ":path", "dev:", "data/words:tsv"])
def test_a_benchmark_without_name_or_path_is_refused(text):
    with pytest.raises(ValueError, match="expected NAME:PATH, such as IIIT5K:"):
        evaluate.parse_benchmarks([text])


def test_two_benchmarks_of_one_name_are_refused():
    with pytest.raises(ValueError, match="benchmark dev: 2 have this name"):
        evaluate.parse_benchmarks(["dev:a", "dev2:a", "dev:b"])


def test_every_record_is_scored_in_order(source):
    result = read(source)
    assert [p.id for p in result.predictions] == [f"noise/{i}" for i in range(11)]
    assert result.score.accuracy == 1.0 and result.score.words == 11
    assert result.unreadable == 0
    for i, prediction in enumerate(result.predictions):
        assert prediction.label == prediction.prediction == source[i]["text"]
        assert prediction.set_name == "set"


def test_a_wrong_label_lowers_the_accuracy(source):
    labels = [source[i]["text"] for i in range(11)]
    labels[0] += "x"
    result = read(noise_source(labels=labels))
    assert result.score.accuracy == pytest.approx(10 / 11)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_unreadable_counts_as_misread_under_every_protocol(source, protocol):
    whole, damaged = read(source, protocol), read(with_damage(source), protocol)
    assert damaged.unreadable == 3
    lost = [damaged.predictions[i] for i in (2, 5, 10)]
    assert [(p.prediction, p.confidence) for p in lost] == [("", 0.0)] * 3
    # Of a lost label nobody knows that the protocol would skip it.
    assert damaged.score.words >= whole.score.words
    assert damaged.score.size == 11
    right = round(whole.score.accuracy * whole.score.words)
    assert round(damaged.score.accuracy * damaged.score.words) == right - 3


def test_the_others_are_read_as_if_nothing_were_damaged(source):
    whole, damaged = read(source), read(with_damage(source))
    for i in {*range(11)} - {2, 5, 10}:
        assert damaged.predictions[i].prediction == whole.predictions[i].prediction


def test_samples_show_the_content_in_rgb_with_label_and_reading(source):
    result = read(source)
    assert len(result.samples) == 11
    sample = result.samples[0]
    assert sample.image.shape[0] == reader().preprocessing.height
    assert sample.image.shape[2] == 3
    scaled = cv2.resize(noise_image(0), sample.image.shape[1::-1])
    assert (sample.image[..., ::-1] == scaled).all()
    assert (sample.label, sample.text) == (source[0]["text"],) * 2


def test_a_run_prints_and_writes_the_table(source, tmp_path, capsys):
    results = evaluate.run(
        reader(),
        [("good", source), ("torn", with_damage(source))],
        protocol="exact",
        output=tmp_path / "out",
    )
    assert [r.score.name for r in results] == ["good", "torn"]
    printed = capsys.readouterr().out
    assert "torn: 3 unreadable images count as misread" in printed
    assert "good: " not in printed
    table = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert [s["accuracy"] for s in table["sets"]] == [1.0, pytest.approx(8 / 11)]
    lines = (tmp_path / "out" / "predictions.tsv").read_text().splitlines()
    assert len(lines) == 1 + 22
    for name in ("good", "torn"):
        assert cv2.imread(str(tmp_path / "out" / "samples" / f"{name}.png")) is not None


def test_a_set_without_a_word_to_score_does_not_take_the_others_with_it(
    source, tmp_path, capsys
):
    odd = noise_source(2, "odd", labels=["中", "!?"])
    sets = [("good", source), ("odd", odd)]
    results = evaluate.run(reader(), sets, protocol="36", output=tmp_path)
    assert [result.score.name for result in results] == ["good"]
    assert "left out: odd: no words to score, protocol 36" in capsys.readouterr().out
    table = json.loads((tmp_path / "accuracy.json").read_text())
    assert [row["name"] for row in table["sets"]] == ["good"]
    with pytest.raises(NothingToScore, match="odd: no words to score"):
        evaluate.run(reader(), [("odd", odd)], protocol="36")


def test_without_an_output_nothing_is_written(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate.run(reader(), [("good", source)], protocol="36")
    assert not list(tmp_path.iterdir())


def test_the_speed_leaves_out_the_batch_that_compiles(source, tmp_path, capsys):
    output = tmp_path / "out"
    benchmarks = [("first", source), ("second", source)]
    results = evaluate.run(reader(), benchmarks, protocol="exact", output=output)
    assert [r.timed_images for r in results] == [11 - reader().batch_size, 11]
    speed = 14 / sum(r.seconds for r in results)
    assert evaluate.images_per_second(results) == pytest.approx(speed)
    assert f"images_per_second: {speed:.4g}" in capsys.readouterr().out
    table = json.loads((output / "accuracy.json").read_text())
    assert table["extra"]["images_per_second"] == pytest.approx(speed)


def test_a_single_batch_has_no_speed(capsys):
    results = evaluate.run(reader(), [("few", noise_source(8))], protocol="exact")
    assert evaluate.images_per_second(results) is None
    assert "images_per_second" not in capsys.readouterr().out


def test_rotation_is_counted_and_changes_nothing_where_no_crop_is_tall(source):
    plain = read(source)
    turning = evaluate.read_benchmark(
        reader(), "set", source, protocol="exact", rotate_tall=1.0
    )
    assert turning.predictions == plain.predictions
    assert (turning.score.turned, turning.score.turned_won) == (0, 0)
    assert plain.score.turned is plain.score.turned_won is None


def test_tall_crops_are_counted_where_they_are_turned_and_where_that_won():
    tall = [noise_image(seed, height=48, width=24) for seed in range(12)]
    elements = [
        {"id": str(i), "image": encode(image), "text": "a"}
        for i, image in enumerate(tall)
    ]
    elements.append({"id": "wide", "image": encode(noise_image(0)), "text": "a"})
    elements.append({"id": "torn", "image": b"", "text": "a"})
    result = evaluate.read_benchmark(
        reader(), "set", ListSource(elements), protocol="exact", rotate_tall=1.0
    )
    readings = reader().read([image[..., ::-1] for image in tall], rotate_tall=1.0)
    assert [p.prediction for p in result.predictions[:12]] == [r.text for r in readings]
    upright = reader().read([image[..., ::-1] for image in tall])
    differ = sum(a != b for a, b in zip(readings, upright, strict=True))
    assert (result.score.turned, result.score.turned_won) == (12, differ)
    assert result.sizes == [(48, 24)] * 12 + [(24, 40), None]


def test_mistakes_are_the_surest_ones_first_without_what_is_damaged(source):
    labels = ["?" + source[i]["text"] for i in range(11)]
    labels[3] = source[3]["text"]
    result = read(with_damage(noise_source(labels=labels)))
    wrong = [p for p in result.predictions if p.prediction != p.label]
    expected = sorted((p.confidence for p in wrong if p.confidence > 0), reverse=True)
    assert [m.reading.confidence for m in result.mistakes] == expected
    assert len(expected) == 11 - 1 - 3
    assert all(m.reading.text != m.label for m in result.mistakes)


def test_a_label_that_the_protocol_skips_is_no_mistake(source):
    labels = [source[i]["text"] for i in range(11)]
    labels[4] = "!?"
    assert read(noise_source(labels=labels), "36").mistakes == []


def test_a_rendered_contextless_source_is_marked_whatever_it_is_called(source):
    source = noise_source(name="rendered/randtext-train-0-11/0")
    assert read(source).score.contextless


def test_a_label_file_an_lmdb_and_array_records_give_the_same_numbers(tmp_path):
    shapes = [(24, 40), (24, 64), (48, 24)] * 7
    images = [noise_image(seed, *shape) for seed, shape in enumerate(shapes)]
    texts = [r.text or "a" for r in reader().read([i[..., ::-1] for i in images])]
    texts[::4] = [text + "b" for text in texts[::4]]
    records = [(encode(i), text) for i, text in zip(images, texts, strict=True)]
    sources = {
        "list": write_list(tmp_path / "list", records),
        "lmdb": write_lmdb(tmp_path / "lmdb", records),
        "records": tmp_path / "records",
    }
    paths = [f"--input={sources['list']}", f"--output={sources['records']}"]
    convert_command([*paths, "--processes=1"])
    tables, texts_read = [], []
    for kind, path in sources.items():
        output = tmp_path / f"{kind}_results"
        benchmarks = [("words", open_named(str(path)))]
        (result,) = evaluate.run(
            reader(), benchmarks, protocol="exact", output=output, rotate_tall=1.0
        )
        tables.append(json.loads((output / "accuracy.json").read_text()))
        assert tables[-1]["extra"].pop("images_per_second") > 0
        texts_read.append([prediction[1:] for prediction in result.predictions])
    assert tables[0] == tables[1] == tables[2]
    assert texts_read[0] == texts_read[1] == texts_read[2]
    assert tables[0]["sets"][0]["turned"] == 7
    assert 0 < tables[0]["sets"][0]["accuracy"] < 1


@pytest.mark.slow
def test_the_documented_contextless_source_is_a_marked_row(capsys):
    fonts_or_skip()
    source = open_named("rendered:randtext?seed=3&count=4")
    evaluate.run(reader(), [("RandText", source)], protocol="exact")
    assert "RandText (contextless)" in capsys.readouterr().out

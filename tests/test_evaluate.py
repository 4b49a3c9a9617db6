"""Benchmarks to scores: nothing vanishes, and what is unreadable is misread."""

import dataclasses
import json
import re
import time

import cv2
import numpy as np
import pytest
from helpers import CHARSET
from pictures import write_list, write_lmdb
from synthetic_fonts import fonts_or_skip
from training import RULE, ListSource, encode, noise_image, reader

from data_prep.convert import main as convert_command
from robustscanner_jax import evaluate
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.metrics import PROTOCOLS, NothingToScore
from robustscanner_jax.reading import DecodedRows, Reader
from robustscanner_jax.views import AS_IT_IS, UNSURE, Views

TURNING = Views(rotate_tall=1.0)


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


def evaluation_of(benchmarks, protocol="exact", **options):
    return evaluate.read_benchmarks(reader(), benchmarks, protocol=protocol, **options)


def table_in(folder):
    return json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))


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


def test_an_evaluation_is_printed_and_written(source, tmp_path, capsys):
    output = tmp_path / "new" / "out"
    evaluation = evaluation_of([("good", source), ("torn", with_damage(source))])
    assert [score.name for score in evaluation.scores] == ["good", "torn"]
    assert capsys.readouterr().out == ""
    evaluate.print_table(evaluation)
    printed = capsys.readouterr().out
    assert "torn: 3 unreadable images count as misread" in printed
    assert "good: " not in printed
    evaluate.write_results(evaluation, output)
    accuracies = [row["accuracy"] for row in table_in(output)["sets"]]
    assert accuracies == [1.0, pytest.approx(8 / 11)]
    lines = (output / "predictions.tsv").read_text().splitlines()
    assert len(lines) == 1 + 22
    for name in ("good", "torn"):
        assert cv2.imread(str(output / "samples" / f"{name}.png")) is not None


def test_a_set_without_a_word_to_score_does_not_take_the_others_with_it(
    source, tmp_path, capsys
):
    odd = noise_source(2, "odd", labels=["中", "!?"])
    evaluation = evaluation_of([("odd", odd), ("good", source)], "36")
    assert [score.name for score in evaluation.scores] == ["good"]
    evaluate.print_table(evaluation)
    assert "left out: odd: no words to score, protocol 36" in capsys.readouterr().out
    evaluate.write_results(evaluation, tmp_path)
    assert [row["name"] for row in table_in(tmp_path)["sets"]] == ["good"]
    with pytest.raises(NothingToScore, match="odd: no words to score"):
        evaluation_of([("odd", odd)], "36")


def test_the_table_says_which_weights_were_read_and_of_which_step(
    source, tmp_path, capsys
):
    weights = evaluate.WeightsRead("tiny", 500)
    evaluation = evaluation_of([("good", source)], weights=weights)
    evaluate.print_table(evaluation)
    assert "weights: tiny\nupdate 500\n" in capsys.readouterr().out
    evaluate.write_results(evaluation, tmp_path)
    assert (
        table_in(tmp_path)["extra"].items() >= {"weights": "tiny", "step": 500}.items()
    )
    unknown = evaluate.WeightsRead("model.safetensors")
    evaluate.write_results(dataclasses.replace(evaluation, weights=unknown), tmp_path)
    extra = table_in(tmp_path)["extra"]
    assert extra["weights"] == "model.safetensors" and "step" not in extra


def test_only_the_weights_of_the_folder_itself_are_the_dot(
    source, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run, link = tmp_path / "run", tmp_path / "link"
    run.mkdir()
    link.symlink_to(run)
    (run / "model.safetensors").touch()
    evaluation = evaluation_of([("good", source)])

    def written(path, output=run):
        read = dataclasses.replace(evaluation, weights=evaluate.WeightsRead(path))
        evaluate.write_results(read, output)
        return table_in(output)["extra"]["weights"]

    assert [written(path) for path in (str(run), "run", "run/", "link")] == ["."] * 4
    for other in (str(tmp_path), "run/model.safetensors", "tiny", "nowhere"):
        assert written(other) == other
    assert written("run", tmp_path / "results") == "run"
    # A name that ships, and results in a new folder that is called alike.
    assert written("tiny", tmp_path / "tiny") == "tiny"


class Sleeper(Reader):
    """Returns only when a batch is read, as an export does, after a known time."""

    charset, preprocessing, batch_size = CHARSET, RULE, 4
    seconds = 0.1

    def decode(self, image, width):
        time.sleep(self.seconds)
        ids = np.full((len(width), 3), self.charset.end_id)
        return DecodedRows(ids, np.ones(ids.shape, np.float32))


@pytest.mark.parametrize("views", [AS_IT_IS, TURNING])
@pytest.mark.parametrize("batches", [2, 3])
def test_no_reader_is_faster_than_it_is(batches, views):
    source = noise_source(4 * batches, labels=["a"] * 4 * batches)
    result = evaluate.read_benchmark(
        Sleeper(), "set", source, protocol="exact", views=views
    )
    assert result.timed_images == 4 * (batches - 1)
    # No upper bound of the seconds: the machine may be busy.
    assert result.seconds >= Sleeper.seconds * (batches - 1)


def test_turned_crops_that_are_read_late_make_no_reader_faster_than_it_is():
    image = encode(noise_image(0, height=48, width=24))
    elements = [{"id": str(i), "image": image, "text": "a"} for i in range(8)]
    result = evaluate.read_benchmark(
        Sleeper(), "set", ListSource(elements), protocol="exact", views=TURNING
    )
    # Two upright batches and four turned ones, of which the first is not counted.
    assert result.timed_images == 4
    assert result.seconds >= 5 * Sleeper.seconds


def test_the_speed_leaves_out_the_batch_that_compiles(source, tmp_path, capsys):
    evaluation = evaluation_of([("first", source), ("second", source)])
    results = evaluation.results
    assert [r.timed_images for r in results] == [11 - reader().batch_size, 11]
    speed = 14 / sum(r.seconds for r in results)
    assert evaluate.images_per_second(results) == pytest.approx(speed)
    evaluate.print_table(evaluation)
    shown = re.search(r"([\d.,]+) images a second", capsys.readouterr().out)
    assert shown
    assert float(shown[1].replace(",", "")) == pytest.approx(speed, rel=0.01)
    evaluate.write_results(evaluation, tmp_path)
    extra = table_in(tmp_path)["extra"]
    assert extra["images_per_second"] == pytest.approx(speed)


def test_a_single_batch_has_no_speed(capsys):
    evaluation = evaluation_of([("few", noise_source(8))])
    assert evaluate.images_per_second(evaluation.results) is None
    evaluate.print_table(evaluation)
    assert "images_per_second" not in capsys.readouterr().out


def test_rotation_is_counted_and_changes_nothing_where_no_crop_is_tall(source):
    plain = read(source)
    turning = evaluate.read_benchmark(
        reader(), "set", source, protocol="exact", views=TURNING
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
        reader(), "set", ListSource(elements), protocol="exact", views=TURNING
    )
    readings = reader().read([image[..., ::-1] for image in tall], rotate_tall=1.0)
    assert [p.prediction for p in result.predictions[:12]] == [r.text for r in readings]
    upright = reader().read([image[..., ::-1] for image in tall])
    differ = sum(a != b for a, b in zip(readings, upright, strict=True))
    assert (result.score.turned, result.score.turned_won) == (12, differ)
    assert result.sizes == [(48, 24)] * 12 + [(24, 40), None]


def test_crops_are_counted_where_they_are_looked_at_closer_and_where_that_won(source):
    assert read(source).score.closer is read(source).score.closer_won is None
    images = [noise_image(seed, height=40, width=80) for seed in range(14)]
    elements = [
        {"id": str(i), "image": encode(image), "text": "a"}
        for i, image in enumerate(images)
    ]
    elements.append({"id": "torn", "image": b"", "text": "a"})
    result = evaluate.read_benchmark(
        reader(),
        "set",
        ListSource(elements),
        protocol="exact",
        views=Views(look_closer=True),
    )
    crops = [image[..., ::-1] for image in images]
    closer = reader().read(crops, look_closer=True)
    assert [p.prediction for p in result.predictions[:14]] == [r.text for r in closer]
    as_it_is = reader().read(crops)
    unsure = sum(reading.confidence < UNSURE for reading in as_it_is)
    differ = sum(a != b for a, b in zip(closer, as_it_is, strict=True))
    assert (result.score.closer, result.score.closer_won) == (unsure, differ)
    assert 0 < differ < unsure


@pytest.mark.parametrize(
    "views", [AS_IT_IS, Views(look_closer=True), Views(rotate_tall=1.5)]
)
def test_a_table_says_which_views_could_be_read(source, views, tmp_path):
    evaluation = evaluation_of([("set", source)], views=views)
    evaluate.write_results(evaluation, tmp_path)
    extra = table_in(tmp_path)["extra"]
    assert extra.items() >= dataclasses.asdict(views).items()


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
        evaluation = evaluation_of(benchmarks, views=TURNING)
        evaluate.write_results(evaluation, output)
        tables.append(table_in(output))
        assert tables[-1]["extra"].pop("images_per_second") > 0
        texts_read.append(
            [prediction[1:] for prediction in evaluation.results[0].predictions]
        )
    assert tables[0] == tables[1] == tables[2]
    assert texts_read[0] == texts_read[1] == texts_read[2]
    assert tables[0]["sets"][0]["turned"] == 7
    assert 0 < tables[0]["sets"][0]["accuracy"] < 1


@pytest.mark.slow
def test_the_documented_contextless_source_is_a_marked_row(capsys):
    fonts_or_skip()
    source = open_named("rendered:randtext?seed=3&count=4")
    evaluate.print_table(evaluation_of([("RandText", source)]))
    assert "RandText (contextless)" in capsys.readouterr().out

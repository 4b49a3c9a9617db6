"""Checkpoint files: read without executing them, damage named."""

import builtins
import os
import pickle
import pickletools

import numpy as np
import pytest
from reference_data import checkpoints

from robustscanner_jax.reference import CheckpointError, load_checkpoint, run_import
from robustscanner_jax.reference import run as run_module
from robustscanner_jax.reference.files import read_checkpoint
from robustscanner_jax.weights import flatten, load_weights


def same(left, right):
    assert set(left) == set(right)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.fixture(scope="module")
def paddle():
    return checkpoints.state("paddle", "files", nano=True)


@pytest.mark.parametrize("protocol", (2, 4, 5))
def test_a_pickle_of_arrays_is_read_whatever_its_protocol(tmp_path, paddle, protocol):
    content = dict(paddle)
    content["StructuredToParameterName@@"] = {name: "conv2d_0.w_0" for name in paddle}
    path = tmp_path / "best.pdparams"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    same(load_checkpoint(path), paddle)


class PaddleTensor:
    """Pickles as Paddle's tensors do: a call of `tuple`."""

    def __init__(self, name, array):
        self.pair = (name, array)

    def __reduce__(self):
        return tuple, (self.pair,)


def test_tensors_pickled_with_their_internal_name_are_read(tmp_path, paddle):
    path = tmp_path / "best.pdparams"
    content = {k: PaddleTensor(f"x_{k}", a) for k, a in paddle.items()}
    path.write_bytes(pickle.dumps(content, protocol=4))
    same(load_checkpoint(path), paddle)


def test_a_pickle_written_by_an_old_numpy_is_read(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    data = pickle.dumps({"a": array}, protocol=2)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    # NEWFALSE, NEWTRUE: numpy 1 wrote the integers 0 and 1.
    old = old.replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
    assert old != data
    path = tmp_path / "old.pdparams"
    path.write_bytes(old)
    np.testing.assert_array_equal(load_checkpoint(path)["a"], array)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (builtins.eval, ("open('{}', 'w')",)),
        (builtins.exec, ("open('{}', 'w')",)),
        (np.load, ("{}",)),
        (getattr, (np, "load")),
    ],
)
def test_a_file_that_wants_to_run_something_is_refused(tmp_path, function, arguments):
    trace = tmp_path / "trace"
    arguments = [str(a).format(trace) for a in arguments]
    path = tmp_path / "evil.pdparams"
    path.write_bytes(pickle.dumps({"a": Evil(function, *arguments)}))
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load_checkpoint(path)
    assert not trace.exists()


def test_arrays_of_objects_are_refused(tmp_path):
    path = tmp_path / "objects.pdparams"
    path.write_bytes(pickle.dumps({"a": np.array([{}, []], object)}))
    with pytest.raises(CheckpointError, match="arrays of object"):
        load_checkpoint(path)


def test_every_cut_of_a_pickle_is_refused_with_its_name(tmp_path):
    whole = pickle.dumps({"a": np.ones((3, 4), np.float32), "b": np.zeros(2)})
    path = tmp_path / "cut.pdparams"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"checkpoint .*cut\.pdparams: "):
            load_checkpoint(path)


def test_a_damaged_byte_never_escapes_as_another_error(tmp_path):
    array = np.ones((3, 4), np.float32)
    whole = pickle.dumps({"a": array})
    length = len(pickletools.optimize(whole))
    path = tmp_path / "damaged.pdparams"
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(length)] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            assert "damaged.pdparams" in str(error)


@pytest.mark.parametrize(
    ("content", "text"),
    [([1, 2], "holds a list"), ({"epoch": 3}, "epoch is a int"), ({}, "no arrays")],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, content, text):
    path = tmp_path / "other.pdparams"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=text):
        load_checkpoint(path)


def test_a_file_that_is_not_there_or_of_another_kind_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "a.pdparams")
    with pytest.raises(CheckpointError, match=r"expected a file ending in \.pth"):
        load_checkpoint(tmp_path / "a.onnx")


def test_an_npz_file_is_read_and_a_cut_one_refused(tmp_path, paddle):
    path = tmp_path / "arrays.npz"
    np.savez(path, **paddle)
    same(load_checkpoint(path), paddle)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"arrays\.npz: "):
        load_checkpoint(path)


def test_without_torch_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    path = tmp_path / "a.pth"
    path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"a\.pth: .*: pip install torch$"):
        load_checkpoint(path)


def test_a_broken_torch_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    def import_torch(name, purpose):
        raise ImportError("libtorch.so: cannot open shared object file")

    monkeypatch.setattr("robustscanner_jax.reference.files.optional", import_torch)
    path = tmp_path / "a.pth"
    path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"a\.pth: libtorch\.so: cannot open"):
        load_checkpoint(path)


def test_a_torch_file_is_unwrapped(tmp_path):
    torch = pytest.importorskip("torch")
    state = checkpoints.state("mmocr", "files", nano=True)
    tensors = {f"module.{k}": torch.tensor(a) for k, a in state.items()}
    tensors["module.encoder.layer.bias"] = tensors["module.encoder.layer.bias"].half()
    path = tmp_path / "epoch_5.pth"
    torch.save({"state_dict": tensors, "optimizer": {}, "meta": {"epoch": 5}}, path)
    read = read_checkpoint(path)
    assert set(read.state) == set(state)
    assert read.state["encoder.layer.bias"].dtype == np.float16
    assert read.notes == (
        "left out of the checkpoint: meta, optimizer",
        "prefix module. removed",
    )
    tensors = {k: torch.tensor(a).bfloat16() for k, a in state.items()}
    tensors["ema_encoder"] = torch.zeros(3)
    torch.save(tensors, path)
    read = read_checkpoint(path)
    assert read.state["encoder.layer.bias"].dtype == np.float32
    assert read.notes == ("left out: 1 moving averages (ema_*)",)
    whole = path.read_bytes()
    for size in (0, 10, 1000, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"epoch_5\.pth: "):
            load_checkpoint(path)
    torch.save({"a": Evil(os.system, f"touch {tmp_path / 'trace'}")}, path)
    with pytest.raises(CheckpointError, match=r"wants .*system, which is no tensor"):
        load_checkpoint(path)
    assert not (tmp_path / "trace").exists()


@pytest.fixture
def published(tmp_path):
    """Returns a checkpoint file of the published size."""
    path = tmp_path / "best.pdparams"
    path.write_bytes(pickle.dumps(checkpoints.state("paddle", "run")))
    return path


def test_an_import_writes_a_weights_file(tmp_path, published):
    output = tmp_path / "new" / "paddle.safetensors"
    certificate = run_import("paddle", published, output)
    assert certificate.ok
    weights = load_weights(output)
    assert weights.card["source"] == "PaddleOCR"
    assert weights.card["checkpoint"] == "best.pdparams"
    assert len(weights.card["checkpoint_sha256"]) == 64
    assert weights.model.max_len == 40 and weights.charset.pad_id == 92
    assert weights.preprocessing.mean == 127.5
    state = checkpoints.state("paddle", "run")
    embedding = flatten(weights.variables)["params/hybrid/embedding"]
    same(
        {"embedding": embedding},
        {"embedding": state["head.decoder.hybrid_decoder.embedding.weight"]},
    )


def test_a_failed_import_leaves_the_output_alone(tmp_path, published, monkeypatch):
    output = tmp_path / "out.safetensors"
    output.write_bytes(b"older")
    certificate = run_import("paddle", published, output, max_len=30)
    assert not certificate.ok and "max_len=40" in certificate.text()
    with pytest.raises(CheckpointError, match="golden file"):
        run_import("paddle", published, output, golden=tmp_path / "none.npz")

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        run_module.run_import("paddle", published, output)
    assert output.read_bytes() == b"older"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.pdparams",
        "out.safetensors",
    ]

"""Data: every format, every mistake in it told in one sentence, and batches gathered the same way by every path."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from nnspec_runtime import Program, Trainer, load_data
from nnspec_runtime import batches as batches_module
from nnspec_runtime.batches import Batches, Loader, ThreadedLoader, open_loader
from nnspec_runtime.errors import DataError, ProgramError
from nnspec_runtime.program import parse_manifest

from tests.runtime import programs

IMAGES = parse_manifest(
    programs.manifest(
        [
            {"name": "image", "dtype": "float32", "shape": ["batch", 1, 4, 3], "role": "input"},
            {"name": "label", "dtype": "int64", "shape": ["batch"], "role": "target", "classes": 10},
        ],
        [],
    )
)
FLAT = parse_manifest(
    programs.manifest([{"name": "image", "dtype": "float32", "shape": ["batch", 12], "role": "input"}], [])
)
SIZES = parse_manifest(
    programs.manifest(
        [
            {"name": "left", "dtype": "float32", "shape": ["batch", "T", 2], "role": "input"},
            {"name": "right", "dtype": "float32", "shape": ["batch", "T"], "role": "input"},
        ],
        [],
    )
)
SEQUENCES = programs.sequences().manifest


def images(count=5):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 3), np.uint8)
    return pixels, np.arange(count) % 10


def idx(array, code):
    return struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_as_mnist_has_it(tmp_path, zipped):
    pixels, labels = images()
    for name, content in (("images-idx3-ubyte", idx(pixels, 8)), ("labels-idx1-ubyte", idx(labels.astype("u1"), 8))):
        (tmp_path / name).write_bytes(gzip.compress(content) if zipped else content)
    sources = [f"image={tmp_path}/images-idx3-ubyte", f"label={tmp_path}/labels-idx1-ubyte"]
    data = load_data(IMAGES, sources)
    image = data.columns["image"].data
    assert image.shape == (5, 1, 4, 3)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[:, 0], pixels / 255, rtol=1e-6)
    np.testing.assert_array_equal(data.columns["label"].data, labels)
    assert data.columns["label"].data.dtype == np.int64
    flat = load_data(FLAT, sources[:1])
    np.testing.assert_array_equal(flat.columns["image"].data, image.reshape(5, 12))


@pytest.mark.parametrize(("code", "dtype"), [(9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")])
def test_idx_types_are_big_endian(tmp_path, code, dtype):
    values = np.array([[1, -2, 3, 100, -5, 6, 7, 8, 9, 10, 11, 12]], dtype)
    (tmp_path / "x").write_bytes(idx(values, code))
    data = load_data(FLAT, [f"image={tmp_path}/x"])
    np.testing.assert_array_equal(data.columns["image"].data, values.astype(np.float32))


@pytest.mark.parametrize("heading", ["", "a,b,c,d,e,f,g,h,i,j,k,l\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n\n"])
def test_csv_with_and_without_headings(tmp_path, heading, end):
    pixels, labels = images()
    lines = [",".join(map(str, row)) for row in pixels.reshape(5, 12)]
    (tmp_path / "x.csv").write_text(heading + end.join(lines) + end)
    (tmp_path / "y.csv").write_text("digit\n" + "\n".join(map(str, labels)))
    data = load_data(IMAGES, [f"image={tmp_path}/x.csv", f"label={tmp_path}/y.csv"])
    np.testing.assert_array_equal(data.columns["image"].data[:, 0], pixels)  # numbers of a table are not scaled
    np.testing.assert_array_equal(data.columns["label"].data, labels)


def test_csv_may_be_zipped(tmp_path):
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"1,2,3,4,5,6,7,8,9,10,11,12\n"))
    assert load_data(FLAT, [f"image={tmp_path}/x.csv.gz"]).size == 1


def test_npz_and_safe_casts(tmp_path):
    pixels, labels = images()
    np.savez(tmp_path / "d.npz", image=pixels[:, None], label=labels.astype(np.uint8))
    data = load_data(IMAGES, tmp_path / "d.npz")
    np.testing.assert_array_equal(data.columns["image"].data[:, 0], pixels.astype(np.float32))
    assert data.columns["label"].data.dtype == np.int64
    assert data.size == len(data) == 5
    double = load_data(IMAGES, {"image": pixels[:, None] / 3, "label": labels})
    assert double.columns["image"].data.dtype == np.float32


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_mapped_and_cast_batch_by_batch(tmp_path, order):
    pixels, labels = images()
    np.save(tmp_path / "x.npy", pixels[:, None] if order == "C" else np.asfortranarray(pixels[:, None]))
    np.save(tmp_path / "y.npy", labels)
    data = load_data(IMAGES, [f"image={tmp_path}/x.npy", f"label={tmp_path}/y.npy"])
    assert isinstance(data.columns["image"].data, np.memmap)
    assert data.columns["image"].data.dtype == np.uint8
    batches = Batches(data, IMAGES.inputs, 3)
    assert batches.threaded
    batches.begin(np.array([4, 0, 2, 1, 3]))
    arrays = [np.empty(shape, one.dtype) for shape, one in zip(batches.shapes(1), IMAGES.inputs, strict=True)]
    batches.fill(1, arrays)
    np.testing.assert_array_equal(arrays[0][:, 0], pixels[[1, 3]])
    np.testing.assert_array_equal(arrays[1], labels[[1, 3]])


def test_predict_needs_no_targets():
    pixels, labels = images()
    image = pixels[:, None].astype(np.float32)
    assert load_data(IMAGES, {"image": image}, purpose="predict").columns.keys() == {"image"}
    both = load_data(IMAGES, {"image": image, "label": labels}, purpose="predict")
    assert both.notes == ()


def test_predict_needs_only_what_the_predict_graph_takes(tmp_path):
    program = programs.mlp()
    content = program.manifest.model_dump()
    teacher = {"name": "teacher", "dtype": "int64", "shape": ["batch", "U"], "role": "input"}
    content["inputs"] = [*content["inputs"], teacher]
    x = programs.blobs(5)["x"]
    for predict in (program.predict, tmp_path / "m.onnx"):
        (tmp_path / "m.onnx").write_bytes(program.predict)
        data = load_data(Program(content, predict=predict), {"x": x}, purpose="predict")
        assert data.columns.keys() == {"x"}
    with pytest.raises(DataError, match="the data lack 'teacher'"):
        load_data(Program(content, predict=program.predict), programs.blobs(5))
    with pytest.raises(ProgramError, match="the predict graph is not an ONNX model"):
        load_data(Program(content, predict=b"nonsense"), {"x": x}, purpose="predict")
    with pytest.raises(ProgramError, match=r"there is no predict graph at .*nothing\.onnx"):
        load_data(Program(content, predict=tmp_path / "nothing.onnx"), {"x": x}, purpose="predict")


def test_surplus_arrays_are_a_note():
    pixels, labels = images()
    data = load_data(IMAGES, {"image": pixels[:, None], "label": labels, "names": np.zeros(5), "x": np.zeros(2)})
    assert data.notes == ("the data hold 'names', 'x', which the program does not use",)


def good(**changes):
    pixels, labels = images()
    arrays = {"image": pixels[:, None].astype(np.float32), "label": labels} | changes
    return {name: array for name, array in arrays.items() if array is not None}


def with_value(value):
    image = np.ones((5, 1, 4, 3), np.float32)
    image[3, 0, 1, 1] = value
    return image


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (good(label=None), "the data lack 'label', int64 of shape [batch]"),
        (good(label=None, labels=np.zeros(5, int)),
         "the data lack 'label', int64 of shape [batch]; did you mean 'labels'?"),
        (good(image=np.ones((5, 4, 3), np.float32)),
         "'image' should have 4 axes, [batch, 1, 4, 3] (a batch axis comes first), but has 3, [5, 4, 3]"),
        (good(label=np.zeros((5, 1), int)), "'label' should have 1 axis, [batch], but has 2, [5, 1]"),
        (good(image=np.ones((5, 4, 3, 1), np.float32)),
         "'image' should have the shape [batch, 1, 4, 3], but has [5, 4, 3, 1]"),
        (good(image=np.full((5, 1, 4, 3), "a")),
         "'image' should hold float32, but holds <U1, which are not plain numbers"),
        (good(image=np.ones((5, 1, 4, 3), complex)),
         "'image' should hold float32, but holds complex128, which are not plain numbers"),
        (good(label=np.zeros(5, np.float32)), "'label' should hold int64, but holds float32"),
        (good(image=with_value(np.nan)), "'image' should hold finite numbers, but holds NaN in sample 3"),
        (good(image=with_value(-np.inf)),
         "'image' should hold finite numbers, but holds an infinite value in sample 3"),
        (good(image=with_value(1.0).astype(np.float64) * 1e39), "'image' holds 1e+39, which float32 cannot hold"),
        (good(label=np.array([0, 9, 10, 1, 2])), "'label' should lie in 0 .. 9 (classes), but is 10 in sample 2"),
        (good(label=np.array([0, 9, 1, -1, 2])), "'label' should lie in 0 .. 9 (classes), but is -1 in sample 3"),
        (good(label=np.array([2**63] * 5, np.uint64)),
         "'label' should lie in 0 .. 9 (classes), but is 9223372036854775808 in sample 0"),
        (good(label=np.zeros(4, int)), "'image' and 'label' have different numbers of samples: 5 and 4"),
        (good(image=np.ones((0, 1, 4, 3), np.float32)), "'image' is empty: its shape is [0, 1, 4, 3]"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(arrays, sentence):
    with pytest.raises(DataError) as caught:
        load_data(IMAGES, arrays)
    assert str(caught.value) == sentence


def test_every_independent_mistake_is_told_at_once():
    with pytest.raises(DataError) as caught:
        load_data(IMAGES, good(image=with_value(np.nan), label=np.array([0, 99, 1, 1, 2])))
    assert len(caught.value.problems) == 2


def test_sizes_of_one_name_must_agree():
    with pytest.raises(DataError, match=r"^'left' and 'right' have different sizes of T: 7 and 6$"):
        load_data(SIZES, {"left": np.ones((3, 7, 2), np.float32), "right": np.ones((3, 6), np.float32)})


def sequence(**changes):
    arrays = {
        "words": np.ones((4, 7, programs.FEATURES), np.float32),
        "words.lengths": np.array([7, 1, 3, 2]),
        "tags": np.zeros((4, 7), int),
        "label": np.zeros(4, int),
    }
    return arrays | changes


@pytest.mark.parametrize(
    ("lengths", "sentence"),
    [
        ([7, 0, 3, 2], "'words.lengths' should lie in 1 .. 7, the size of 'words', but is 0 in sample 1"),
        ([7, 1, 8, 2], "'words.lengths' should lie in 1 .. 7, the size of 'words', but is 8 in sample 2"),
        ([7, 1, -3, 2], "'words.lengths' should lie in 1 .. 7, the size of 'words', but is -3 in sample 2"),
    ],
)
def test_lengths_are_checked(lengths, sentence):
    with pytest.raises(DataError) as caught:
        load_data(SEQUENCES, sequence(**{"words.lengths": np.array(lengths)}))
    assert str(caught.value) == sentence


def test_inputs_may_share_lengths():
    content = SEQUENCES.model_dump()
    content["inputs"][2]["lengths"] = "words.lengths"
    content["inputs"][2]["shape"] = ["batch", "U"]
    shared = parse_manifest(content)
    arrays = sequence(tags=np.zeros((4, 9), int))
    data = load_data(shared, arrays)
    assert data.bounds.keys() == {"T", "U"}
    batches = Batches(data, shared.inputs, 2)
    assert [shape[1:2] for shape in batches.shapes(1)] == [(3,), (), (3,), ()]
    with pytest.raises(
        DataError, match=r"'words\.lengths' should lie in 1 \.\. 6, the size of 'tags', but is 7 in sample 0"
    ):
        load_data(shared, sequence(tags=np.zeros((4, 6), int)))


def test_missing_lengths():
    arrays = sequence()
    del arrays["words.lengths"]
    with pytest.raises(DataError, match=r"the data lack 'words\.lengths', int64 of shape \[batch\]"):
        load_data(SEQUENCES, arrays)


class Unpickled:
    """Raises when a pickle of it is loaded."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_never_loaded(tmp_path):
    objects = np.array([Unpickled()], object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", image=objects, allow_pickle=True)
    with pytest.raises(DataError, match="holds Python objects, not numbers; pickles are never loaded"):
        load_data(FLAT, [f"image={tmp_path}/x.npy"])
    with pytest.raises(DataError, match=r"'image' of .*x\.npz holds Python objects, not numbers"):
        load_data(FLAT, tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x", b"", "{} is empty"),
        ("x.csv", b"\n \n", "{} has no lines of numbers"),
        ("x.csv", b"a,b\n", "{} has headings but no lines of numbers"),
        ("x.csv", b"1,2\n1,2,3\n", "{}, line 2 has 3 columns, the lines before it 2"),
        ("x.csv", b"a,b\n1,2\n3,x y\n", "{}, line 3, column 2: 'x y' is not a number"),
        ("x.csv", b"1,2\n3,\n", "{}, line 2, column 2: '' is not a number"),
        ("x.csv", b"1,2\n3,1_0\n", "{}, line 2, column 2: '1_0' is not a number"),
        ("x.bin", b"\x7fELF\xff\xfe", "{} is none of .npz, .npy, IDX and .csv"),
        ("x.idx", idx(np.zeros((2, 12), "u1"), 8)[:-1],
         "{} is not a whole IDX file: its header [2, 12] needs 24 bytes of data, it has 23"),
        ("x.idx", b"\0\0\x08\x03\0\0", "{} is a truncated IDX file: its header is not whole"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_data(FLAT, [f"image={path}"])
    assert str(caught.value) == sentence.format(path)


def test_truncated_and_mistaken_files(tmp_path):
    pixels, labels = images()
    np.savez(tmp_path / "d.npz", image=pixels[:, None], label=labels)
    np.save(tmp_path / "x.npy", pixels)
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "half.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-5])
    (tmp_path / "half.gz").write_bytes(gzip.compress(idx(pixels, 8))[:-9])
    for sources, sentence in (
        (tmp_path / "half.npz", r"half\.npz is not a whole \.npz file"),
        ([f"image={tmp_path}/half.npy"], r"half\.npy cannot be read as an array"),
        ([f"image={tmp_path}/half.gz"], r"half\.gz is not a whole gzip file"),
        (tmp_path / "nothing.npz", r"there is no file .*nothing\.npz"),
        ([f"image={tmp_path}"], "is a folder, not a data file"),
        (tmp_path / "x.npy", r"x\.npy is not an \.npz file; give a single array as NAME="),
        ([f"image={tmp_path}/d.npz"], "give it without a name"),
        (["image="], "'image=' is not data"),
        ([f"image={tmp_path}/x.npy", f"image={tmp_path}/x.npy"], "'image' is given twice"),
        (np.zeros(3), "an array needs a name"),
    ):
        with pytest.raises(DataError, match=sentence) as caught:
            load_data(IMAGES, sources)
        assert "\n" not in str(caught.value)


def test_wide_csv_with_fractions_for_integers(tmp_path):
    (tmp_path / "y.csv").write_text("1\n2.5\n")
    with pytest.raises(DataError, match=r"'label' should hold int64, but holds 2\.5 in sample 1"):
        load_data(IMAGES, {"image": np.ones((2, 1, 4, 3), np.float32), "label": tmp_path / "y.csv"})


def test_a_thread_gathers_the_same_batches(monkeypatch):
    program = programs.mlp(batch=8, epochs=4)
    data = load_data(program, programs.blobs(77))
    direct = Trainer(program, data)
    assert type(open_loader(direct._batches)) is Loader
    expected = direct.fit()
    monkeypatch.setattr(batches_module, "THREAD_BYTES", 0)
    assert type(open_loader(direct._batches)) is ThreadedLoader
    threaded = Trainer(program, data, validation=data).fit()
    for name, weight in expected.weights.items():
        assert weight.tobytes() == threaded.weights[name].tobytes()


def test_a_failure_in_the_thread_reaches_the_trainer(monkeypatch):
    program = programs.mlp(batch=8, epochs=4)
    monkeypatch.setattr(batches_module, "THREAD_BYTES", 0)
    trainer = Trainer(program, load_data(program, programs.blobs(77)))
    monkeypatch.setattr(Batches, "fill", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit()

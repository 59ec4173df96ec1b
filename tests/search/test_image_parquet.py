"""Data sets in Parquet files of encoded images."""

import pyarrow as pa
import pytest

from hwnas.search.datasets import load_dataset
from hwnas.spaces.errors import InvalidFileError

from .images import ids, per_class, png, write_parquet


class TestParquet:
    def images(self, count, start=0, **kind):
        return [png(start + i, **kind) for i in range(count)]

    def test_bytes_and_class_names(self, tmp_path):
        path = write_parquet(tmp_path / "a.parquet", self.images(24), pa.array([0, 1] * 12, pa.int8()), "dog, cat")
        data = load_dataset(path)
        assert data.classes == ("dog", "cat")
        assert data.input_shape == (3, 4, 4)
        assert [value % 2 for value in ids(data.train)] == data.train.labels.tolist()
        assert sorted(ids(data.train) + ids(data.validation) + ids(data.test)) == list(range(24))

    def test_struct_and_string_labels(self, tmp_path):
        images = [{"bytes": data, "path": None} for data in self.images(8)]
        path = write_parquet(tmp_path / "a.parquet", images, pa.array(["b", "a"] * 4).dictionary_encode())
        data = load_dataset(path)
        assert data.classes == ("a", "b")
        assert [1 - value % 2 for value in ids(data.train)] == data.train.labels.tolist()

    def test_integer_labels_without_names(self, tmp_path):
        assert load_dataset(write_parquet(tmp_path / "a.parquet", self.images(8), [10, 9] * 4)).classes == ("9", "10")

    def test_string_labels_with_names(self, tmp_path):
        data = load_dataset(write_parquet(tmp_path / "a.parquet", self.images(8), ["b", "a"] * 4, "b,a"))
        assert data.classes == ("b", "a")
        assert [value % 2 for value in ids(data.train)] == data.train.labels.tolist()

    def test_second_file_is_the_test_split(self, tmp_path):
        train = write_parquet(tmp_path / "train.parquet", self.images(20), [0, 1] * 10, "a,b")
        test = write_parquet(tmp_path / "test.parquet", self.images(3, 100), [1, 0, 1], "a,b")
        data = load_dataset(train, test_path=test, limit=10)
        assert ids(data.test) == [100, 101, 102]
        assert data.test.labels.tolist() == [1, 0, 1]
        assert per_class(data.train) == [(0, 4), (1, 4)]
        assert per_class(data.validation) == [(0, 1), (1, 1)]

    @pytest.mark.parametrize(
        ("images", "labels", "classes", "message"),
        [
            (None, [0, None], "a,b", r"a\.parquet row 1 has no label"),
            ([b"", None], [0, 1], "a,b", r"a\.parquet row 1 has no image"),
            (None, [0, 2], "a,b", r"a\.parquet row 1: the label 2 is out of range"),
            (None, [0, -1], "a,b", r"row 1: the label -1 is out of range"),
            (None, ["a", "c"], "a,b", r"row 1: the label 'c' is out of range"),
            (None, [0.0, 1.0], "a,b", r"label must hold integers or strings, not double"),
            ([[1], [2]], [0, 1], "a,b", r"image must hold encoded images as bytes, not list"),
            (None, [0, 1], "a,a", r"'classes' must be distinct names"),
            (None, [0, 1], "a,b", r"a\.parquet has too few images of class a .*1 remain where 2 are needed"),
            (None, [0, 0], None, r"must have at least 2 classes, not 1 \(0\)"),
            (pa.array([], pa.binary()), pa.array([], pa.int64()), "a,b", r"a\.parquet has no rows"),
        ],
    )
    def test_malformed(self, tmp_path, images, labels, classes, message):
        path = write_parquet(tmp_path / "a.parquet", self.images(2) if images is None else images, labels, classes)
        with pytest.raises(InvalidFileError, match=message):
            load_dataset(path)

    def test_missing_column_names_those_found(self, tmp_path):
        path = write_parquet(tmp_path / "a.parquet", self.images(2), [0, 1], names=("img", "label"))
        with pytest.raises(InvalidFileError, match=r"columns image and label, once each; it has img, label"):
            load_dataset(path)

    def test_unreadable_image_names_the_row(self, tmp_path):
        images = self.images(8)
        for broken in (b"no image", images[5][:-30], b""):
            path = write_parquet(tmp_path / "a.parquet", [*images[:5], broken, *images[6:]], [0, 1] * 4)
            with pytest.raises(InvalidFileError, match=r"a\.parquet row 5 cannot be used as an image"):
                load_dataset(path)

    def test_truncated_file(self, tmp_path):
        path = tmp_path / "a.parquet"
        write_parquet(path, self.images(8), [0, 1] * 4)
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"", b"no Parquet", b"\0" * 200 + whole[200:]):
            path.write_bytes(content)
            with pytest.raises(InvalidFileError, match=r"a\.parquet is not a whole Parquet file"):
                load_dataset(str(path))

    def test_test_file_must_agree(self, tmp_path):
        train = write_parquet(tmp_path / "train.parquet", self.images(8), [0, 1] * 4, "a,b")
        test = write_parquet(tmp_path / "test.parquet", self.images(2), [0, 1], "b,a")
        with pytest.raises(InvalidFileError, match=r"test\.parquet names other classes"):
            load_dataset(train, test_path=test)
        test = write_parquet(tmp_path / "test.parquet", self.images(2), [0, 2])
        with pytest.raises(InvalidFileError, match=r"test\.parquet row 1: the label 2 is out of range"):
            load_dataset(train, test_path=test)
        with pytest.raises(InvalidFileError, match=r"there is no file .*none\.parquet"):
            load_dataset(train, test_path=str(tmp_path / "none.parquet"))

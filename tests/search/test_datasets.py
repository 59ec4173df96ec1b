import warnings
from collections import Counter
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from hwnas.search.datasets import Split, batches, load_dataset
from hwnas.spaces.errors import InvalidFileError, UnknownNameError


def pixels(value, size=(4, 4), mode="RGB"):
    return Image.new(mode, size, value if mode in ("L", "1") else (value, value, value))


def write_folder(root, counts, *, start=0, **kind):
    """Images whose grey level tells them apart: start, start + 1 … in the order of the classes."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels(start, **kind).save(root / name / f"{number:03}.png")
            start += 1
    return root


def png(value, **kind):
    buffer = BytesIO()
    pixels(value, **kind).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path, images, labels, classes=None, names=("image", "label")):
    table = pa.table([images, labels], names=names)
    pq.write_table(table.replace_schema_metadata({"classes": classes} if classes else None), path)
    return str(path)


def ids(split):
    """The grey levels that tell the images apart."""
    return split.images[:, 0, 0, 0].tolist()


def per_class(split):
    return sorted(Counter(split.labels.tolist()).items())


class TestDigits:
    def test_sizes_classes_and_values(self):
        digits = load_dataset("digits")
        assert digits.input_shape == (1, 8, 8)
        assert digits.classes == tuple("0123456789")
        assert digits.num_classes == 10
        sizes = [len(s) for s in (digits.train, digits.validation, digits.test)]
        assert sum(sizes) == 1797
        assert sizes[2] == pytest.approx(0.25 * 1797, abs=5)
        assert sizes[1] == pytest.approx(0.2 * 0.75 * 1797, abs=5)
        assert digits.train.images.dtype == torch.uint8
        assert digits.train.labels.dtype == torch.int64
        assert set(digits.train.images.unique().tolist()) == {round(v * 255 / 16) for v in range(17)}

    def test_splits_are_stratified(self):
        digits = load_dataset("digits")
        counts = [np.bincount(s.labels) for s in (digits.train, digits.validation, digits.test)]
        total = sum(counts)
        assert np.abs(counts[2] - 0.25 * total).max() <= 0.5
        assert np.abs(counts[1] - 0.2 * (total - counts[2])).max() <= 0.5

    def test_seed_changes_validation_but_not_test(self):
        one, two, again = (load_dataset("digits", seed=seed) for seed in (0, 1, 0))
        assert torch.equal(one.test.images, two.test.images)
        assert not torch.equal(one.validation.images, two.validation.images)
        assert torch.equal(one.validation.images, again.validation.images)

    def test_normalised_training_images_have_mean_0_and_std_1(self):
        digits = load_dataset("digits")
        images = digits.normalise(digits.train.images)
        assert images.dtype == torch.float32
        assert images.mean().item() == pytest.approx(0, abs=1e-5)
        assert images.std().item() == pytest.approx(1, abs=1e-4)

    def test_image_size(self):
        assert load_dataset("digits", image_size=12).input_shape == (1, 12, 12)

    def test_images_carry_their_labels(self):
        digits = load_dataset("digits")
        centres = torch.stack([digits.train.images[digits.train.labels == c].float().mean(0) for c in range(10)])
        nearest = torch.cdist(digits.test.images.float().flatten(1), centres.flatten(1)).argmin(1)
        assert (nearest == digits.test.labels).float().mean() > 0.8


class TestFolder:
    def test_splits_are_disjoint_stratified_and_whole(self, tmp_path):
        folder = write_folder(tmp_path, {"cat": 40, "ant": 20})
        data = load_dataset(str(folder))
        assert data.classes == ("ant", "cat")
        assert sorted(ids(data.train) + ids(data.validation) + ids(data.test)) == list(range(60))
        assert per_class(data.test) == [(0, 5), (1, 10)]
        assert per_class(data.validation) == [(0, 3), (1, 6)]
        for split in (data.train, data.validation, data.test):
            assert [label == 1 for label in split.labels] == [value < 40 for value in ids(split)]

    def test_test_images_are_the_same_for_every_seed_and_limit(self, tmp_path):
        folder = str(write_folder(tmp_path, {"a": 40, "b": 40}))
        one, two, limited = (load_dataset(folder, seed=0), load_dataset(folder, seed=1), load_dataset(folder, limit=20))
        assert ids(one.test) == ids(two.test) == ids(limited.test)
        assert ids(one.validation) != ids(two.validation)

    def test_seed_does_not_change_the_images_that_a_limit_keeps(self, tmp_path):
        folder = str(write_folder(tmp_path, {"a": 40, "b": 40}))
        one, two = (load_dataset(folder, limit=20, seed=seed) for seed in (0, 1))
        assert sorted(ids(one.train) + ids(one.validation)) == sorted(ids(two.train) + ids(two.validation))
        assert ids(one.train) != ids(two.train)

    def test_limit_is_balanced_as_far_as_classes_allow(self, tmp_path):
        data = load_dataset(str(write_folder(tmp_path, {"few": 8, "many": 80})), limit=30)
        kept = Counter(data.train.labels.tolist() + data.validation.labels.tolist())
        assert kept == {0: 6, 1: 24}
        data = load_dataset(str(tmp_path), limit=10)
        assert Counter(data.train.labels.tolist() + data.validation.labels.tolist()) == {0: 5, 1: 5}
        assert len(data.test) == 22

    def test_given_parts_are_kept(self, tmp_path):
        write_folder(tmp_path / "train", {"a": 6, "b": 6})
        write_folder(tmp_path / "val", {"a": 2, "b": 2}, start=100)
        write_folder(tmp_path / "test", {"b": 3}, start=200)
        data = load_dataset(str(tmp_path))
        assert (ids(data.train), ids(data.validation), ids(data.test)) == (
            list(range(12)),
            list(range(100, 104)),
            [200, 201, 202],
        )
        assert data.test.labels.tolist() == [1, 1, 1]

    def test_limit_keeps_the_proportion_of_given_parts(self, tmp_path):
        write_folder(tmp_path / "train", {"a": 6, "b": 6})
        write_folder(tmp_path / "val", {"a": 2, "b": 2}, start=100)
        data = load_dataset(str(tmp_path), limit=7, test=0.3)
        assert per_class(data.train) == [(0, 2), (1, 2)]
        assert per_class(data.validation) == [(0, 1), (1, 1)]

    def test_train_and_test_may_be_classes(self, tmp_path):
        assert load_dataset(str(write_folder(tmp_path, {"train": 4, "tram": 4}))).classes == ("train", "tram")

    @pytest.mark.parametrize(("modes", "channels"), [("LL", 1), ("1L", 1), (["L", "RGB"], 3), (["P", "P"], 3)])
    def test_channels(self, tmp_path, modes, channels):
        for name, mode in zip("ab", modes, strict=True):
            (tmp_path / name).mkdir()
            for number in range(4):
                pixels(255).convert(mode).save(tmp_path / name / f"{number}.png")
        data = load_dataset(str(tmp_path))
        assert data.input_shape == (channels, 4, 4)
        assert all((s.images == 255).all() for s in (data.train, data.validation, data.test))

    def test_channels_keep_their_order(self, tmp_path):
        for name, colour in (("a", (200, 100, 0)), ("b", (100, 0, 200))):
            (tmp_path / name).mkdir()
            for number in range(4):
                Image.new("RGB", (5, 3), colour).save(tmp_path / name / f"{number}.bmp")
        data = load_dataset(str(tmp_path))
        assert data.input_shape == (3, 3, 5)
        assert data.test.images[:, :, 0, 0].tolist() == [[200, 100, 0], [100, 0, 200]]
        assert data.mean == pytest.approx((150 / 255, 50 / 255, 100 / 255))
        assert data.std == pytest.approx((50 / 255, 50 / 255, 100 / 255))

    def test_image_size_crops_the_centre(self, tmp_path):
        for name in "ab":
            (tmp_path / name).mkdir()
            for number in range(4):
                image = np.zeros((8, 24), dtype=np.uint8)
                image[:, 8:16] = 255
                Image.fromarray(image).save(tmp_path / name / f"{number}.png")
        pixels(255, size=(4, 4), mode="L").save(tmp_path / "a" / "0.png")
        data = load_dataset(str(tmp_path), image_size=8)
        assert data.input_shape == (1, 8, 8)
        assert (data.train.images == 255).all()

    def test_other_files_are_left_alone(self, tmp_path):
        write_folder(tmp_path, {"a": 4, "b": 4})
        (tmp_path / "a" / "notes.txt").write_text("no image")
        (tmp_path / "a" / "._000.png").write_text("no image")
        (tmp_path / ".cache").mkdir()
        assert load_dataset(str(tmp_path)).classes == ("a", "b")

    def test_constant_images_can_be_normalised(self, tmp_path):
        for name in "ab":
            (tmp_path / name).mkdir()
            for number in range(4):
                pixels(7).save(tmp_path / name / f"{number}.png")
        data = load_dataset(str(tmp_path))
        assert torch.equal(data.normalise(data.test.images).round(decimals=4), torch.zeros(2, 3, 4, 4))


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


class TestErrors:
    def test_unknown_name(self):
        with pytest.raises(UnknownNameError, match=r"unknown dataset 'digit'; did you mean 'digits'.*\.parquet file"):
            load_dataset("digit")

    @pytest.mark.parametrize("name", ["./cifar10", "cifar10.parquet"])
    def test_missing_path(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InvalidFileError, match="there is no file cifar10"):
            load_dataset(name)

    def test_folder_without_classes(self, tmp_path):
        pixels(0).save(tmp_path / "0.png")
        with pytest.raises(InvalidFileError, match=r"no images: put them into one folder per class"):
            load_dataset(str(tmp_path))

    def test_class_without_images(self, tmp_path):
        (write_folder(tmp_path / "train", {"a": 4}) / "b").mkdir()
        write_folder(tmp_path / "test", {"a": 1})
        write_folder(tmp_path / "val", {"a": 1})
        with pytest.raises(InvalidFileError, match=r"too few images of class b .*0 remain where 1 are needed"):
            load_dataset(str(tmp_path))

    def test_too_few_images_for_both_splits(self, tmp_path):
        with pytest.raises(InvalidFileError, match=r"too few images of class b .*1 remain where 2 are needed"):
            load_dataset(str(write_folder(tmp_path, {"a": 4, "b": 2})))

    def test_too_low_limit(self, tmp_path):
        with pytest.raises(InvalidFileError, match=r"too few images of class b.*raise the limit"):
            load_dataset(str(write_folder(tmp_path, {"a": 9, "b": 9})), limit=3)

    def test_class_that_only_tests(self, tmp_path):
        write_folder(tmp_path / "train", {"a": 4, "b": 4})
        write_folder(tmp_path / "test", {"a": 4, "c": 4})
        with pytest.raises(InvalidFileError, match=r"test/c is a class without training images"):
            load_dataset(str(tmp_path))

    def test_unknown_part(self, tmp_path):
        write_folder(tmp_path / "train", {"a": 4, "b": 4})
        write_folder(tmp_path / "holdout", {"a": 4, "b": 4})
        with pytest.raises(InvalidFileError, match=r"holds train, so holdout must be renamed to val or test"):
            load_dataset(str(tmp_path))

    def test_sizes_differ(self, tmp_path):
        write_folder(tmp_path, {"a": 4, "b": 4})
        pixels(9, size=(5, 4)).save(tmp_path / "b" / "9.png")
        with pytest.raises(InvalidFileError, match=r"5×4 pixels and .* 4×4: set image_size"):
            load_dataset(str(tmp_path))

    def test_unreadable_image_names_the_file(self, tmp_path):
        write_folder(tmp_path, {"a": 4, "b": 4})
        (tmp_path / "b" / "001.png").write_bytes(b"no image")
        with pytest.raises(InvalidFileError, match=r"b/001\.png cannot be used as an image \(not BMP, GIF"):
            load_dataset(str(tmp_path))

    def test_formats_that_start_programs_are_refused(self, tmp_path):
        write_folder(tmp_path, {"a": 4, "b": 4})
        pixels(0).save(tmp_path / "b" / "eps", "EPS")
        (tmp_path / "b" / "eps").rename(tmp_path / "b" / "001.png")
        with pytest.raises(InvalidFileError, match=r"001\.png cannot be used as an image \(not BMP"):
            load_dataset(str(tmp_path))

    @pytest.mark.parametrize("most_pixels", [10, 15])  # Pillow refuses above twice that, and only warns above it
    def test_decompression_bomb(self, tmp_path, monkeypatch, most_pixels):
        write_folder(tmp_path, {"a": 4, "b": 4}, size=(3, 3))
        pixels(0, size=(5, 5)).save(tmp_path / "b" / "001.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most_pixels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(InvalidFileError, match=r"001\.png cannot be used as an image .*decompression bomb"):
                load_dataset(str(tmp_path), image_size=4)

    def test_16_bits_are_not_silently_cut(self, tmp_path):
        write_folder(tmp_path, {"a": 4, "b": 4})
        Image.fromarray(np.full((4, 4), 1000, dtype=np.uint16)).save(tmp_path / "b" / "001.png")
        with pytest.raises(InvalidFileError, match=r"001\.png .*mode is I;16, not 8 bits"):
            load_dataset(str(tmp_path))

    def test_test_path_is_for_parquet_only(self):
        with pytest.raises(InvalidFileError, match=r"x\.parquet cannot hold the test images of digits"):
            load_dataset("digits", test_path="x.parquet")

    @pytest.mark.parametrize("wrong", [{"validation": 0.0}, {"test": 1.0}, {"image_size": 0}, {"limit": 0}])
    def test_arguments_out_of_range(self, wrong):
        with pytest.raises(ValueError, match="must be"):
            load_dataset("digits", **wrong)


class TestBatches:
    def split(self, count):
        return Split(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count))

    def test_in_order_without_generator(self):
        labels = [labels.tolist() for _, labels in batches(self.split(5), 2, None)]
        assert labels == [[0, 1], [2, 3], [4]]

    def test_shuffled_without_a_last_batch_of_one(self):
        generator = torch.Generator().manual_seed(0)
        passes = [list(batches(self.split(9), 4, generator)) for _ in range(2)]
        orders = [torch.cat([labels for _, labels in one]).tolist() for one in passes]
        assert [len(set(order)) for order in orders] == [8, 8]
        assert orders[0] != orders[1]
        assert all(torch.equal(images.flatten().long(), labels) for one in passes for images, labels in one)
        again = torch.cat([labels for _, labels in batches(self.split(9), 4, torch.Generator().manual_seed(0))])
        assert again.tolist() == orders[0]

    def test_last_batch_of_two_stays(self):
        assert [len(labels) for _, labels in batches(self.split(6), 4, torch.Generator())] == [4, 2]

    def test_batches_of_one_when_asked_for(self):
        assert len(list(batches(self.split(3), 1, torch.Generator()))) == 3

"""Data sets that are refused, with what to do."""

import warnings

import numpy as np
import pytest
from PIL import Image

from hwnas.search.datasets import load_dataset
from hwnas.spaces.errors import InvalidFileError, UnknownNameError

from .images import pixels, write_folder


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

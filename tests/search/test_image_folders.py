"""Data sets in folders of images by class."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from hwnas.search.datasets import load_dataset

from .images import ids, per_class, pixels, write_folder


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

"""The digits, and batches of a split."""

import numpy as np
import pytest
import torch

from hwnas.search.datasets import Split, batches, load_dataset


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

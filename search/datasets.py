"""Labelled images from files that are already on this machine, split for training, validation and test.

Nothing is downloaded. The test images are the same for every seed, so that runs are comparable; the seed chooses which
of the other images validate. Both splits keep the share of each class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.search.image_sources import Part, decode, read_source
from hwnas.spaces.errors import InvalidFileError

FIXED_SEED = 20180731
"""Chooses the test images, and the images that a limit keeps: with another, old results are not comparable."""


@dataclass(frozen=True, slots=True)
class Split:
    """Images, uint8 (n, channels, height, width), and their labels, int64 (n,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three disjoint splits of labelled images.

    Attributes:
        name: As given to `load_dataset`.
        classes: Name of each label.
        train, validation, test: The splits.
        mean, std: Per channel, of the training images scaled to 0..1; a std is at least one grey level, 1/255.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.classes)

    def normalise(self, images: Tensor) -> Tensor:
        """From uint8 (n, channels, height, width) to float32 of that shape: ``(images / 255 - mean) / std``."""
        mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) * 255 for v in (self.mean, self.std))
        return images.float().sub_(mean).div_(std)


def load_dataset(
    name: str,
    *,
    validation: float = 0.2,
    test: float = 0.25,
    image_size: int | None = None,
    limit: int | None = None,
    test_path: str | None = None,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Reads images, and splits off the parts that the source does not have.

    Args:
        name: One of

            - ``digits``: scikit-learn's 1,797 handwritten digits, 1×8×8;
            - a folder ``<class>/<image>``, or ``train/<class>/<image>`` with ``val`` and ``test`` beside ``train``;
            - a Parquet file with the columns ``image`` (encoded bytes, or a struct with ``bytes``) and ``label``
              (integer or string). The schema's metadata ``classes`` may name the classes, with commas between them;
              an integer label then counts from 0. Without it the distinct labels are the classes, sorted.
        validation: Share of the images that do not test that validates, unless the source has such a part.
        test: Share of the images that tests, unless the source has such a part.
        image_size: Side in pixels: the short side is resized to it and the centre cropped. Otherwise all images must
            have one size.
        limit: Most images for training and validation together, as many of each class as there are. The test images
            stay whole.
        test_path: A second Parquet file, with the test images.
        seed: Chooses the validation images.
        mean, std: Per channel, to normalise images by, such as those that a trained model was trained with; by default
            those of the training images.

    Raises:
        UnknownNameError: ``name`` is neither ``digits`` nor a path that exists.
        InvalidFileError: A file or folder is missing or malformed, or has too few images of a class.
        ValueError: A share is not between 0 and 1, or a size or limit is below 1.
    """
    if not (0 < validation < 1 and 0 < test < 1):
        raise ValueError(f"validation and test must be between 0 and 1, not {validation} and {test}")
    if (image_size is not None and image_size < 1) or (limit is not None and limit < 1):
        raise ValueError(f"image_size and limit must be at least 1, not {image_size} and {limit}")
    source = read_source(name, test_path)
    classes, parts = source.classes, source.parts
    if len(classes) < 2:
        raise InvalidFileError(f"{name} must have at least 2 classes, not {len(classes)} ({', '.join(classes)})")
    if "test" not in parts:
        parts["train"], parts["test"] = _split_off(name, classes, parts["train"], test, FIXED_SEED)
    if limit is not None:
        parts |= _limited({key: part for key, part in parts.items() if key != "test"}, limit)
    if "validation" not in parts:
        parts["train"], parts["validation"] = _split_off(name, classes, parts["train"], validation, seed)
    _require(name, classes, parts["train"], 1)

    order = [parts[key] for key in ("train", "validation", "test")]
    pixels = decode([image for part in order for image in part.images], image_size)
    images = torch.split(torch.from_numpy(pixels), [len(part) for part in order])
    train, held, tested = (Split(i, torch.from_numpy(p.labels)) for i, p in zip(images, order, strict=True))
    found = _mean_and_std(pixels[: len(train)])
    given = [own if values is None else tuple(values) for values, own in zip((mean, std), found, strict=True)]
    for values in given:
        if len(values) != pixels.shape[1]:
            raise ValueError(
                f"mean and std must have {pixels.shape[1]} values for images of so many channels: {values}"
            )
    return Dataset(name, classes, train, held, tested, *given)


def batches(split: Split, batch_size: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Images, uint8 (b, channels, height, width), and labels, int64 (b,), of every batch of one pass.

    Without a generator they come in order. With one they are shuffled, and a last batch of a single image is left out,
    because batch normalisation cannot train on it.
    """
    order = torch.arange(len(split)) if generator is None else torch.randperm(len(split), generator=generator)
    for rows in torch.split(order, batch_size):
        if generator is None or len(rows) > 1 or batch_size == 1:
            yield split.images[rows], split.labels[rows]


def _require(name: str, classes: tuple[str, ...], part: Part, least: int) -> None:
    counts = np.bincount(part.labels, minlength=len(classes))
    if counts.min() < least:
        raise InvalidFileError(
            f"{name} has too few images of class {classes[counts.argmin()]} to train and to hold some back: "
            f"{counts.min()} remain where {least} are needed; add images or raise the limit"
        )


def _turns(labels: NDArray[np.int64], seed: int) -> NDArray[np.intp]:
    """Numbers the images of each class 0, 1, 2 … in random order (n,)."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    turns = np.empty(len(labels), dtype=np.intp)
    turns[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return turns


def _split_off(name: str, classes: tuple[str, ...], part: Part, share: float, seed: int) -> tuple[Part, Part]:
    """The rest, and the share of each class; at least one image of each class in both."""
    _require(name, classes, part, 2)
    counts = np.bincount(part.labels)
    quota = np.clip(np.rint(counts * share), 1, counts - 1)
    taken = _turns(part.labels, seed) < quota[part.labels]
    return part.take(np.flatnonzero(~taken)), part.take(np.flatnonzero(taken))


def _limited(parts: dict[str, Part], limit: int) -> dict[str, Part]:
    """At most ``limit`` images in all, in the proportion of the parts, classes taking turns."""
    total = sum(map(len, parts.values()))
    kept = {}
    for key, part in parts.items():
        by_turns = np.argsort(_turns(part.labels, FIXED_SEED), kind="stable")
        kept[key] = part.take(np.sort(by_turns[: max(1, limit * len(part) // total)]))
    return kept


def _mean_and_std(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each channel of (n, channels, height, width), scaled to 0..1; counts values, so that no float copy is made."""
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[1], 256))
    for start in range(0, len(images), 1024):
        for channel, values in enumerate(images[start : start + 1024].swapaxes(0, 1)):
            counts[channel] += np.bincount(values.ravel(), minlength=256)
    counts /= counts.sum(axis=1, keepdims=True)
    mean = counts @ levels
    std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.tolist()), tuple(np.maximum(std, 1 / 255).tolist())

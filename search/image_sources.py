"""Labelled images as they lie on disk: scikit-learn's digits, folders by class, Parquet files; and their decoding."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from hwnas.spaces.errors import InvalidFileError, UnknownNameError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may decode; some of its other formats start programs."""

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Files of a class folder that are images, in lower case; others are left alone."""

PARTS = {"train": "train", "val": "validation", "test": "test"}
"""The part that a folder beside the training images holds."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One image before decoding: where it is, for messages, and a path, encoded bytes or an image in memory."""

    where: str
    data: Path | bytes | Image.Image


@dataclass(frozen=True, slots=True)
class Part:
    """Images before decoding, and their labels (n,)."""

    images: list[Encoded]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.intp]) -> Part:
        """The images of these rows, in their order."""
        return Part([self.images[row] for row in rows], self.labels[rows])


@dataclass(frozen=True, slots=True)
class Source:
    """The name of each label, and the parts that exist: ``train`` always, ``validation`` and ``test`` perhaps."""

    classes: tuple[str, ...]
    parts: dict[str, Part]


def read_source(name: str, test_path: str | None) -> Source:
    """What `hwnas.search.datasets.load_dataset` describes under the same names, not decoded yet.

    Raises:
        UnknownNameError: ``name`` is neither ``digits`` nor a path that exists.
        InvalidFileError: A file or folder is missing or malformed.
    """
    path = Path(name)
    if test_path is not None and (name == "digits" or path.is_dir()):
        raise InvalidFileError(f"{test_path} cannot hold the test images of {name}: only a Parquet file can have some")
    if name == "digits":
        return _digits()
    if path.is_dir():
        return _folder(path)
    if not path.exists() and path.name == name and not path.suffix:
        hint = "Otherwise give the path of a folder with one folder of images per class, or of a .parquet file"
        raise UnknownNameError("dataset", name, ["digits"], hint)
    return _parquet(path, None if test_path is None else Path(test_path))


def decode(images: list[Encoded], image_size: int | None) -> NDArray[np.uint8]:
    """Decodes images to (n, channels, height, width); one channel if every image is grey, else red, green, blue.

    Args:
        images: At least one.
        image_size: Side in pixels: the short side is resized to it and the centre cropped. Otherwise all images must
            have one size.

    Raises:
        InvalidFileError: An image is unreadable, too large to be safe, not 8-bit, or of another size.
    """
    pixels = np.empty((0, 3, 0, 0), dtype=np.uint8)
    grey = True
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for row, encoded in enumerate(images):
            image = _decode_one(encoded, image_size)
            if row == 0:
                pixels = np.empty((len(images), 3, image.height, image.width), dtype=np.uint8)
            height, width = pixels.shape[2:]
            if image.size != (width, height):
                raise InvalidFileError(
                    f"{encoded.where} has {image.width}×{image.height} pixels and {images[0].where} {width}×{height}: "
                    "set image_size to bring all images to one size"
                )
            grey &= image.mode == "L"
            pixels[row] = np.asarray(image).reshape(height, width, -1).transpose(2, 0, 1)  # grey fills all three
    return pixels[:, :1].copy() if grey else pixels


def _decode_one(encoded: Encoded, image_size: int | None) -> Image.Image:
    data = BytesIO(encoded.data) if isinstance(encoded.data, bytes) else encoded.data
    try:
        with data if isinstance(data, Image.Image) else Image.open(data, formats=FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"its mode is {image.mode}, not 8 bits per channel")
            plain = image.convert("L" if image.mode in ("1", "L") else "RGB")
    except Exception as error:  # decoders raise nearly anything on malformed bytes
        why = f"not {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else error
        raise InvalidFileError(f"{encoded.where} cannot be used as an image ({why}): replace or remove it") from error
    if image_size is None:
        return plain
    return ImageOps.fit(plain, (image_size, image_size), Image.Resampling.BILINEAR)


def _digits() -> Source:
    from sklearn.datasets import load_digits  # slow to import, and needed only here

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = [Encoded(f"digit {row}", Image.fromarray(image)) for row, image in enumerate(pixels)]
    return Source(tuple(map(str, digits.target_names)), {"train": Part(images, digits.target.astype(np.int64))})


def _folders(path: Path) -> dict[str, Path]:
    return {p.name: p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")}


def _folder(path: Path) -> Source:
    parts = _folders(path)
    if "train" not in parts or not _folders(parts["train"]):  # a class may be called train
        parts = {"train": path}
    elif others := sorted(parts.keys() - PARTS.keys()):
        raise InvalidFileError(f"{path} holds train, so {', '.join(others)} must be renamed to val or test, or moved")
    classes = tuple(_folders(parts["train"]))
    return Source(classes, {PARTS[part]: _class_folders(folder, classes) for part, folder in parts.items()})


def _class_folders(path: Path, classes: tuple[str, ...]) -> Part:
    images: list[Encoded] = []
    labels: list[int] = []
    for name, folder in _folders(path).items():
        if name not in classes:
            raise InvalidFileError(f"{folder} is a class without training images: add some or remove the folder")
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
                images.append(Encoded(str(file), file))
                labels.append(classes.index(name))
    if not images:
        raise InvalidFileError(f"{path} holds no images: put them into one folder per class, {path}/<class>/")
    return Part(images, np.array(labels, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class _Table:
    """The columns of one Parquet file, and the classes that its metadata names, if it does."""

    path: Path
    images: list[bytes]
    labels: list[Any]  # all int or all str
    classes: tuple[str, ...]

    def part(self, numbers: Mapping[int | str, int]) -> Part:
        for row, label in enumerate(self.labels):
            if label not in numbers:
                raise InvalidFileError(f"{self.path} row {row}: the label {label!r} is out of range: correct the label")
        images = [Encoded(f"{self.path} row {row}", data) for row, data in enumerate(self.images)]
        return Part(images, np.array([numbers[label] for label in self.labels], dtype=np.int64))


def _parquet(path: Path, test_path: Path | None) -> Source:
    train = _read_table(path)
    classes = train.classes
    numbers: dict[int | str, int] = {name: label for label, name in enumerate(classes)}
    numbers |= {label: label for label in range(len(classes))}
    if not classes:
        numbers = {value: label for label, value in enumerate(sorted(set(train.labels)))}
        classes = tuple(map(str, numbers))
    parts = {"train": train.part(numbers)}
    if test_path is not None:
        test = _read_table(test_path)
        if train.classes and test.classes and train.classes != test.classes:
            raise InvalidFileError(f"{test_path} names other classes in its metadata than {path}: correct one of them")
        parts["test"] = test.part(numbers)
    return Source(classes, parts)


def _read_table(path: Path) -> _Table:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            table = file.read([name for name in ("image", "label") if name in names])
    except FileNotFoundError as error:
        raise InvalidFileError(f"there is no file {path}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InvalidFileError(
            f"{path} is not a whole Parquet file ({reason}): give another or copy it again"
        ) from error
    if table.num_columns != 2:
        raise InvalidFileError(f"{path} must have the columns image and label, once each; it has {', '.join(names)}")
    if not table.num_rows:
        raise InvalidFileError(f"{path} has no rows: give a file with images")
    images, labels = table["image"], table["label"]
    if pa.types.is_struct(images.type) and images.type.get_field_index("bytes") >= 0:
        images = pc.struct_field(images, "bytes")
    if not (pa.types.is_binary(images.type) or pa.types.is_large_binary(images.type)):
        raise InvalidFileError(f"{path}: image must hold encoded images as bytes, not {images.type}")
    if pa.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    if not any(test(labels.type) for test in (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)):
        raise InvalidFileError(f"{path}: label must hold integers or strings, not {labels.type}")
    for name, column in (("image", images), ("label", labels)):
        if column.null_count:
            row = column.is_null().index(True).as_py()
            raise InvalidFileError(f"{path} row {row} has no {name}: remove the row or fill it in")
    return _Table(path, images.to_pylist(), labels.to_pylist(), _class_names(path, table.schema.metadata or {}))


def _class_names(path: Path, metadata: Mapping[bytes, bytes]) -> tuple[str, ...]:
    if b"classes" not in metadata:
        return ()
    names = tuple(name.strip() for name in metadata[b"classes"].decode(errors="replace").split(","))
    if "" in names or len(set(names)) < len(names):
        raise InvalidFileError(f"{path}: the metadata 'classes' must be distinct names with commas between them")
    return names

"""Small images on disk, told apart by their grey levels."""

from collections import Counter
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


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

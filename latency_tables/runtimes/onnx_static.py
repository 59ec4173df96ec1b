"""ONNX Runtime's own static quantisation of a file, as a baseline."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from hwnas.spaces.files import replacing


class _Inputs(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, inputs: Iterable[NDArray[np.float32]]) -> None:
        self._name, self._left = name, iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        array = next(self._left, None)
        return None if array is None else {self._name: array}


def write_static(model: Path, name: str, inputs: Iterable[NDArray[np.float32]], path: Path) -> None:
    """Calibrates a float file on inputs of the name, and writes it in QDQ, uint8 activations and int8 weights."""
    with replacing(path) as temporary:
        whole = temporary.with_suffix(".float.onnx")
        try:
            quant_pre_process(str(model), str(whole))
            quantize_static(
                str(whole), str(temporary), _Inputs(name, inputs), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            )  # fmt: skip
        finally:
            whole.unlink(missing_ok=True)

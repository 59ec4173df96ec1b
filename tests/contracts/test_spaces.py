"""Every space keeps the contract, alone and joined with other dimensions; deep ones with fewer blocks, to save time."""

from __future__ import annotations

from typing import Any, ClassVar

from .space_contract import SpaceContract

USUAL = ("bits", "sparsity", "rank")
EVERY = (*USUAL, "density")
SMALL: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
DIGITS: dict[str, Any] = {"name": "mbconv", "input_shape": (1, 8, 8), "num_classes": 10}


def shallow(*depths: int) -> dict[str, Any]:
    """Few blocks in each stage of a residual network."""
    return {"narrow": {"s?.depth": depths}}


class TestMbconvDigits(SpaceContract):
    arguments: ClassVar = {**DIGITS, "joint": USUAL}
    rows = 1000


class TestMbconvThumbnails(SpaceContract):
    arguments: ClassVar = {"name": "mbconv", "joint": USUAL, **SMALL}


class TestMbconvPhotographs(SpaceContract):
    arguments: ClassVar = {"name": "mbconv", "joint": USUAL}
    rows = 240
    networks = 1


class TestMbconvArchitectureOnly(SpaceContract):
    arguments: ClassVar = {**DIGITS, "joint": ()}


class TestMbconvBitsOnly(SpaceContract):
    arguments: ClassVar = {**DIGITS, "joint": ("bits",)}


class TestMobileNetV2(SpaceContract):
    arguments: ClassVar = {"name": "mobilenetv2", "joint": EVERY, **SMALL}
    rows = 240
    networks = 1


class TestMnasNet(SpaceContract):
    arguments: ClassVar = {"name": "mnasnet", "joint": EVERY, **SMALL}
    rows = 240
    networks = 1


class TestMnasNetAlone(SpaceContract):
    arguments: ClassVar = {"name": "mnasnet", "joint": (), **SMALL}
    rows = 240
    networks = 1


class TestFBNet(SpaceContract):
    arguments: ClassVar = {"name": "fbnet", "joint": EVERY, **SMALL}
    rows = 240
    networks = 1


class TestFBNetAlone(SpaceContract):
    arguments: ClassVar = {"name": "fbnet", "joint": (), **SMALL}
    rows = 240
    networks = 1


class TestProxylessNas(SpaceContract):
    arguments: ClassVar = {"name": "proxylessnas", "joint": ("bits", "sparsity"), **SMALL}
    rows = 240
    networks = 1


class TestChamNet(SpaceContract):
    arguments: ClassVar = {"name": "chamnet", "joint": ("sparsity", "rank"), **SMALL}
    rows = 240
    networks = 1


class TestOnceForAll(SpaceContract):
    arguments: ClassVar = {"name": "ofa_mobilenetv3", "joint": ("bits",), **SMALL}
    rows = 240
    networks = 1


class TestResnetArchitectureOnly(SpaceContract):
    arguments: ClassVar = {"name": "resnet_cifar", "joint": (), **SMALL, **shallow(1, 2, 3, 5)}
    rows = 300
    networks = 2


class TestResnet(SpaceContract):
    arguments: ClassVar = {"name": "resnet_cifar", "joint": EVERY, **SMALL, **shallow(1, 2, 3)}
    rows = 400
    networks = 2


class TestUgconvArchitectureOnly(SpaceContract):
    arguments: ClassVar = {"name": "ugconv", "joint": (), **SMALL, **shallow(1, 2, 3)}
    rows = 400
    networks = 2


class TestUgconv(SpaceContract):
    arguments: ClassVar = {"name": "ugconv", "joint": EVERY, **SMALL, **shallow(1, 2, 3)}
    rows = 400
    networks = 2


class TestEspnetv2(SpaceContract):
    arguments: ClassVar = {
        "name": "espnetv2", "input_shape": (3, 16, 16), "num_classes": 10, "joint": EVERY,
        "narrow": {"level3.depth": [2], "level4.depth": [5, 6], "level5.depth": [2]},
    }  # fmt: skip
    rows = 160
    networks = 1
    repeating = "keep"


class TestEspnetv2ArchitectureOnly(SpaceContract):
    arguments: ClassVar = {"name": "espnetv2", "input_shape": (3, 16, 16), "num_classes": 10, "joint": ()}
    rows = 160
    networks = 1
    repeating = "receptive_limit"
    redundant = 0.1


class CellContract(SpaceContract):
    """What all decide is operations and, where channels are pruned, widths; cells repeat an operation, not a kernel."""

    always = (".op", ".width")
    repeating = "op"


class TestCells(CellContract):
    arguments: ClassVar = {"name": "nasbench201", "joint": (), **SMALL}
    rows = 480
    networks = 2
    mutants = 8  # of one operation to the output, all else of the cell does not matter


class TestJointCells(CellContract):
    arguments: ClassVar = {"name": "nasbench201", "input_shape": (1, 13, 8), "num_classes": 4, "joint": EVERY}
    rows = 120
    networks = 1

"""The published spaces that are stage tables keep the contract, alone and joined with every dimension."""

from __future__ import annotations

from functools import cache
from typing import Any

from hwnas.spaces import Space, load_space

from .space_contract import SpaceContract

ALL = ("bits", "sparsity", "rank", "density")


@cache
def space(name: str, joint: tuple[str, ...], side: int = 32) -> Space:
    return load_space(name, input_shape=(3, side, side), num_classes=10, joint=joint)


def contract(name: str, joint: tuple[str, ...]) -> Any:
    """The contract's test class for a space."""

    class Contract(SpaceContract):
        rows = 240
        networks = 1

        @staticmethod
        def make() -> Space:
            return space(name, joint)

    return Contract


class TestMobileNetV2(contract("mobilenetv2", ALL)): ...


class TestMnasNet(contract("mnasnet", ALL)): ...


class TestMnasNetAlone(contract("mnasnet", ())): ...


class TestFBNet(contract("fbnet", ALL)): ...


class TestFBNetAlone(contract("fbnet", ())): ...


class TestProxylessNas(contract("proxylessnas", ("bits", "sparsity"))): ...


class TestChamNet(contract("chamnet", ("sparsity", "rank"))): ...


class TestOnceForAll(contract("ofa_mobilenetv3", ("bits",))): ...

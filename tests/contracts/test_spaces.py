"""Every space keeps the contract."""

from __future__ import annotations

from functools import cache

from hwnas.spaces import Space, load_space

from .space_contract import SpaceContract


@cache
def mbconv(shape: tuple[int, int, int], classes: int, joint: tuple[str, ...]) -> Space:
    return load_space("mbconv", input_shape=shape, num_classes=classes, joint=joint)


@cache
def residual(name: str, depths: tuple[int, ...], joint: tuple[str, ...]) -> Space:
    narrow = {"s?.depth": depths}
    return load_space(name, input_shape=(3, 32, 32), num_classes=10, joint=joint, narrow=narrow)


ALL = ("bits", "sparsity", "rank")
EVERY = ("bits", "sparsity", "rank", "density")


class TestMbconvDigits(SpaceContract):
    rows = 2000

    @staticmethod
    def make() -> Space:
        return mbconv((1, 8, 8), 10, ALL)


class TestMbconvThumbnails(SpaceContract):
    rows = 800

    @staticmethod
    def make() -> Space:
        return mbconv((3, 32, 32), 10, ALL)


class TestMbconvPhotographs(SpaceContract):
    rows = 240
    networks = 1

    @staticmethod
    def make() -> Space:
        return mbconv((3, 224, 224), 1000, ALL)


class TestMbconvArchitectureOnly(SpaceContract):
    @staticmethod
    def make() -> Space:
        return mbconv((1, 8, 8), 10, ())


class TestMbconvBitsOnly(SpaceContract):
    @staticmethod
    def make() -> Space:
        return mbconv((1, 8, 8), 10, ("bits",))


class TestResnetArchitectureOnly(SpaceContract):
    rows = 300
    networks = 2

    @staticmethod
    def make() -> Space:
        return residual("resnet_cifar", (1, 2, 3, 5), ())


class TestResnet(SpaceContract):
    rows = 400
    networks = 2

    @staticmethod
    def make() -> Space:
        return residual("resnet_cifar", (1, 2, 3), EVERY)


class TestUgconvArchitectureOnly(SpaceContract):
    rows = 400
    networks = 2

    @staticmethod
    def make() -> Space:
        return residual("ugconv", (1, 2, 3), ())


class TestUgconv(SpaceContract):
    rows = 400
    networks = 2

    @staticmethod
    def make() -> Space:
        return residual("ugconv", (1, 2, 3), EVERY)


class TestEspnetv2(SpaceContract):
    """With fewer units than the space has, to save time."""

    rows = 160
    networks = 1
    repeating = "keep"

    @staticmethod
    @cache
    def make() -> Space:
        fewer = {"level3.depth": [2], "level4.depth": [5, 6], "level5.depth": [2]}
        return load_space("espnetv2", input_shape=(3, 16, 16), num_classes=10, joint=EVERY, narrow=fewer)


class TestEspnetv2ArchitectureOnly(SpaceContract):
    rows = 160
    networks = 1
    repeating = "receptive_limit"
    redundant = 0.1

    @staticmethod
    @cache
    def make() -> Space:
        return load_space("espnetv2", input_shape=(3, 16, 16), num_classes=10, joint=())

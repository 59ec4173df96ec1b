"""Low-rank factors: exact at full rank, and the least error on the data that they were made for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear

from hwnas.spaces.compression.low_rank import Form, energy, even_rank, factor_channel, factor_spatial
from hwnas.spaces.compression.patch_moments import PatchMoments
from hwnas.spaces.errors import InvalidOptionError

FACTOR: dict[Form, Callable[..., tuple[Tensor, Tensor]]] = {"channel": factor_channel, "spatial": factor_spatial}
FORMS: list[Form] = ["channel", "spatial"]
WEIGHTS = [(8, 5, 3, 3), (3, 7, 5, 2), (30, 2, 1, 3), (4, 6, 1, 1), (1, 3, 3, 3), (5, 1, 3, 4)]
GEOMETRIES = [((1, 1), (0, 0), (1, 1)), ((2, 1), (1, 2), (1, 1)), ((3, 2), (2, 1), (2, 3))]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def anisotropic(*shape: int) -> Tensor:
    """Inputs whose channels, of dimension 1, differ in scale and depend on each other, smooth in both directions."""
    x = draw(*shape, seed=1)
    for axis in range(2, x.ndim):
        x = x + x.roll(1, axis)
    mix = draw(shape[1], shape[1], seed=2) * torch.logspace(0, -2, shape[1])
    return torch.einsum("ic,nc...->ni...", mix, x) + 0.3


def full(weight: Tensor, form: Form) -> int:
    out, channels, height, width = weight.shape
    return min(out, channels * height * width) if form == "channel" else min(channels * height, out * width)


def run(form: Form, factors: tuple[Tensor, Tensor], x: Tensor, geometry: object = GEOMETRIES[0]) -> Tensor:
    """The two convolutions that stand for one of this geometry."""
    (sh, sw), (ph, pw), (dh, dw) = geometry  # type: ignore[misc]
    first, second = (f.double() for f in factors)
    if form == "channel":
        return conv2d(conv2d(x, first, None, (sh, sw), (ph, pw), (dh, dw)), second)
    y = conv2d(x, first, None, (sh, 1), (ph, 0), (dh, 1))
    return conv2d(y, second, None, (1, sw), (0, pw), (1, dw))


def moments_of(form: Form, weight: Tensor, x: Tensor) -> Tensor:
    make = PatchMoments if form == "channel" else PatchMoments.vertical
    moments = make((weight.shape[2], weight.shape[3]), positions=10**9)
    moments.add(x)
    return moments.matrix()


def matrix_of(form: Form, weight: Tensor) -> Tensor:
    """Outputs by inputs of the first factor, element by element."""
    out, channels, height, width = weight.shape
    if form == "channel":
        return weight.double().reshape(out, -1)
    matrix = torch.zeros(out * width, channels * height, dtype=torch.float64)
    for o in range(out):
        for i in range(channels):
            for a in range(height):
                for b in range(width):
                    matrix[o * width + b, i * height + a] = weight[o, i, a, b]
    return matrix


def error(form: Form, weight: Tensor, factors: tuple[Tensor, Tensor], moment: Tensor) -> float:
    """The mean square error of the outputs, over the data that the moment is of."""
    first, second = (f.double() for f in factors)
    rebuilt = second.squeeze((2, 3)) @ first.flatten(1) if form == "channel" else None
    if rebuilt is None:
        rebuilt = matrix_of(form, torch.einsum("riax,orxb->oiab", first, second))
    difference = matrix_of(form, weight) - rebuilt
    return float((difference @ moment @ difference.T).trace())


@pytest.mark.parametrize("shape", WEIGHTS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("form", FORMS)
def test_full_rank_is_the_layer(form: Form, shape: tuple[int, ...], geometry: tuple[tuple[int, int], ...]) -> None:
    weight, x = draw(*shape), draw(2, shape[1], 12, 13, seed=3).double()
    expected = conv2d(x, weight.double(), None, *geometry)
    rank = full(weight, form)
    few = draw(3, shape[1], shape[2], shape[3], seed=4)  # less data than dimensions: most directions have none
    for moment in (None, moments_of(form, weight, few)):
        factors = FACTOR[form](weight, rank, moment)
        assert factors[0].dtype == factors[1].dtype == torch.float32
        assert torch.allclose(run(form, factors, x, geometry), expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("form", FORMS)
def test_shapes_of_factors(form: Form) -> None:
    first, second = FACTOR[form](draw(8, 5, 3, 2), 4)
    assert first.shape == ((4, 5, 3, 2) if form == "channel" else (4, 5, 3, 1))
    assert second.shape == ((8, 4, 1, 1) if form == "channel" else (8, 4, 1, 2))
    for a, b in zip(first.flatten(1).norm(dim=1), second.transpose(0, 1).flatten(1).norm(dim=1), strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-4), "both factors are of one size"


@pytest.mark.parametrize("shape", [(8, 5, 3, 3), (12, 7, 5, 2), (30, 3, 1, 3)])
@pytest.mark.parametrize("form", FORMS)
def test_moments_never_harm_on_their_data_and_help_a_lot(form: Form, shape: tuple[int, ...]) -> None:
    weight, x = draw(*shape), anisotropic(6, shape[1], 12, 12)
    moment = moments_of(form, weight, x)
    matrix = matrix_of(form, weight)
    whole = float((matrix @ moment @ matrix.T).trace())
    optimum = torch.linalg.eigvalsh(matrix @ moment @ matrix.T).flip(0)
    gains = []
    for rank in range(1, full(weight, form) + 1):
        best = error(form, weight, FACTOR[form](weight, rank, moment), moment)
        plain = error(form, weight, FACTOR[form](weight, rank), moment)
        assert best <= plain + 1e-5 * whole
        assert best == pytest.approx(float(optimum[rank:].sum()), rel=1e-3, abs=1e-5 * whole)
        gains.append(plain / max(best, 1e-5 * whole))
    assert max(gains) > 3


def test_the_plain_form_is_the_least_change_of_weights() -> None:
    weight = draw(8, 5, 3, 3)
    for form in FORMS:
        values = torch.linalg.svdvals(matrix_of(form, weight))
        identity = torch.eye(matrix_of(form, weight).shape[1], dtype=torch.float64)
        for rank in (1, 3, 7):
            changed = error(form, weight, FACTOR[form](weight, rank), identity)
            assert changed == pytest.approx(float(values[rank:].square().sum()), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_layers_own_output_is_better_for_it(form: Form) -> None:
    weight, x = draw(8, 6, 3, 3), anisotropic(6, 6, 12, 12)
    moment, exact = moments_of(form, weight, x), conv2d(x.double(), weight.double())
    for rank in (2, 4, 6):
        weighted, plain = (
            (run(form, FACTOR[form](weight, rank, m), x.double()) - exact).square().mean() for m in (moment, None)
        )
        assert weighted < 0.7 * plain
        if form == "channel":
            assert float(8 * weighted) == pytest.approx(error(form, weight, FACTOR[form](weight, rank, moment), moment))


def test_linear_layers() -> None:
    weight, x = draw(10, 6), anisotropic(400, 6)
    moments = PatchMoments()
    moments.add(x)
    exact = linear(x, weight)
    for rank in (1, 2, 4, 6):
        first, second = factor_channel(weight, rank, moments.matrix())
        assert (first.shape, second.shape) == ((rank, 6), (10, rank))
        missed = (linear(linear(x, first), second) - exact).square().sum(1).mean()
        best = torch.linalg.svdvals(exact.double())[rank:].square().sum() / len(x)  # of any rank-r outputs
        assert float(missed) == pytest.approx(float(best), rel=1e-3, abs=1e-5 * float(exact.square().sum(1).mean()))
    assert torch.allclose(second @ first, weight, atol=1e-5)


def test_a_layer_without_data_or_without_weights() -> None:
    weight = draw(4, 3, 3, 3)
    zero = torch.zeros(27, 27)
    for a, b in zip(factor_channel(weight, 2, zero), factor_channel(weight, 2), strict=True):
        assert torch.equal(a, b)
    first, second = factor_channel(torch.zeros(4, 3, 3, 3), 4)
    assert not first.any()
    assert second.isfinite().all()


def test_energy_by_hand() -> None:
    weight = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0, 1.0, 0.5]))
    assert even_rank(weight, "channel") == 3
    assert energy(weight, "channel").tolist() == pytest.approx([0.0, 9 / 13, 1.0])
    moment = torch.diag(torch.tensor([0.0, 1.0, 1.0, 9.0, 16.0, 0.0])).double()
    assert energy(weight, "channel", moment).tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-4)  # 16, 9, 9, 4
    assert energy(torch.ones(2, 2), "channel").tolist() == [1.0]
    assert energy(torch.zeros(9, 9), "channel").tolist() == [1.0] * 4


@pytest.mark.parametrize("form", FORMS)
def test_energy_says_what_each_rank_keeps_of_the_output(form: Form) -> None:
    weight, x = draw(16, 6, 3, 3), anisotropic(6, 6, 12, 12)
    moment = moments_of(form, weight, x)
    kept = energy(weight, form, moment)
    last = even_rank(weight, form)
    assert last == (16 * 6 * 9 // (6 * 9 + 16) if form == "channel" else 16 * 6 * 3 // (16 + 6))
    assert len(kept) == min(last, full(weight, form))
    errors = [error(form, weight, FACTOR[form](weight, r, moment), moment) for r in range(1, len(kept) + 1)]
    expected = [(errors[0] - e) / (errors[0] - errors[-1]) for e in errors]
    assert kept.tolist() == pytest.approx(expected, abs=1e-4)


def test_the_even_rank_has_no_more_weights_than_the_layer() -> None:
    for shape in WEIGHTS:
        for form in FORMS:
            weight = torch.ones(shape)
            for rank, fits in ((even_rank(weight, form), True), (even_rank(weight, form) + 1, False)):
                out, channels, height, width = shape
                first = channels * height * (width if form == "channel" else 1)
                second = out * (1 if form == "channel" else width)
                assert (rank * (first + second) <= weight.numel()) is fits


def test_what_makes_no_sense_is_refused() -> None:
    weight = draw(4, 3, 3, 3)
    for rank in (0, 5):
        with pytest.raises(InvalidOptionError, match=rf"a rank of {rank} .* from 1 to 4"):
            factor_channel(weight, rank)
    with pytest.raises(InvalidOptionError, match=r"\(9, 9\) for a first factor that reads 27"):
        factor_channel(weight, 2, torch.eye(9))
    with pytest.raises(InvalidOptionError, match="cannot be split spatially"):
        factor_spatial(draw(4, 3), 2)
    with pytest.raises(InvalidOptionError, match="cannot be factorised"):
        factor_channel(draw(4, 3, 3), 2)
    with pytest.raises(InvalidOptionError, match="no low-rank form 'tucker'"):
        energy(weight, "tucker")  # type: ignore[arg-type]
    lopsided = torch.eye(27)
    lopsided[0, 5] = 0.5
    for moment in (-torch.eye(27), lopsided, torch.eye(27) * torch.nan):
        with pytest.raises(InvalidOptionError, match="symmetric and without negative"):
            factor_channel(weight, 2, moment)

import e3nn_jax as e3nn
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from chemscale_jax.models.tensor_products import (
    kind_of_component,
    layer_kinds,
    offsets,
    paths,
    product,
    spherical_kinds,
)


def kinds(*names):
    return tuple(e3nn.Irrep(name) for name in names)


SPHERE = kinds("0e", "1o", "2e")


@pytest.mark.parametrize(
    ("parity", "depth", "middle"),
    [
        # With two layers, nothing of the other parity can come back to a scalar.
        ("o3_full", 2, [SPHERE]),
        ("o3_full", 3, [kinds("0e", "1e", "1o", "2e", "2o"), SPHERE]),
        ("o3_restricted", 3, [SPHERE, SPHERE]),
        ("so3", 2, [kinds("0e", "1e", "2e")]),
    ],
)
def test_only_useful_irreps_are_kept(parity, depth, middle):
    first = spherical_kinds(2, parity)
    found = layer_kinds(2, parity, depth)
    assert found == [first, *middle, kinds("0e")]


def test_paths_are_ordered_and_sparse():
    ways = paths(SPHERE, SPHERE, SPHERE)
    assert len(ways) == 11
    places = [way[:3] for way in ways]
    assert places == sorted(places)
    # Of 729 coefficients these are not zero.
    assert sum(len(terms) for way in ways for terms in way.terms) == 83
    assert offsets(SPHERE) == [0, 1, 4, 9]
    assert kind_of_component(SPHERE) == [0, 1, 1, 1, 2, 2, 2, 2, 2]


def test_products_turn_with_their_factors_and_keep_variance():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 9, 20_000))
    turn = Rotation.from_euler("zyx", [0.3, -1.2, 2.0]).as_matrix()
    turn = turn @ np.diag([1.0, 1.0, -1.0])
    out = kinds("0e", "1e", "1o", "2e", "2o")
    matrices = {ir: np.asarray(ir.D_from_matrix(turn)) for ir in out}

    def turned(x, irreps):
        rows = np.split(x[:, :50], offsets(irreps)[1:-1])
        return np.concatenate(
            [matrices[ir] @ part for ir, part in zip(irreps, rows, strict=True)]
        )

    for way in paths(SPHERE, SPHERE, out):
        found = np.stack(product(way, list(left), list(right)))
        # A fourth-moment estimate from 20,000 samples; the sum rule is exact.
        assert found.var(axis=1) == pytest.approx(1.0, abs=0.15)
        assert (found**2).mean() == pytest.approx(1.0, abs=0.08)
        factors = list(turned(left, SPHERE)), list(turned(right, SPHERE))
        expected = turned(found, (out[way.out],))
        np.testing.assert_allclose(
            np.stack(product(way, *factors)), expected, atol=2e-5
        )

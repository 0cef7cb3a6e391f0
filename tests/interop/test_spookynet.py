import os
import pathlib

import jax
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import spookynet as interop
from chemscale_jax.models import spookynet
from chemscale_jax.models.electron_configuration import electron_table
from tests.parity_cases.fixture import read_fixture

CONFIG = {
    "num_features": 6,
    "num_basis_functions": 4,
    "num_modules": 2,
    "cutoff": 3.5,
    "lr_cutoff": None,
    "basis_functions": "exp-bernstein",
    "num_residual_local_s": 2,
    "use_zbl_repulsion": True,
    "use_electrostatics": True,
    "use_d4_dispersion": True,
}


def random_tree(config):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(spookynet.initializer(config), jax.random.key(0))
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"_exact_attention": True, "basis_functions": "sinc", "activation": "ssp"},
        {"use_d4_dispersion": False, "basis_functions": "exp-gaussian"},
        {"use_zbl_repulsion": False, "basis_functions": "gaussian"},
        {"num_modules": 1, "basis_functions": "bernstein", "num_residual_post": 0},
    ],
)
def test_export_undoes_import(changes):
    config = interop.spookynet_config({**CONFIG, **changes})
    state = interop.export_spookynet(random_tree(config), config)
    tree = interop.import_spookynet(state, config)
    back = interop.export_spookynet(tree, config)
    assert set(back) == set(state)
    for name, array in state.items():
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)


def test_arrays_find_their_place():
    config = interop.spookynet_config(CONFIG)
    tree = random_tree(config)
    state = interop.export_spookynet(tree, config)
    params = tree["params"]
    assert np.array_equal(
        state["module.1.local_interaction.radial_p.weight"],
        params["module_1"]["local"]["radial_p"].T,
    )
    name = "module.0.local_interaction.resblock_s.residual.stack.1.linear2.weight"
    # The second of the parts x, s, p, d, q, k, v; it alone has a second block.
    kernel = params["module_0"]["parts"]["stack"]["block_1_dense2"]["kernel"]
    assert np.array_equal(state[name], kernel[1].T)
    assert name.replace("_s.", "_p.") not in state
    back = interop.import_spookynet(state, config)["params"]["module_0"]["parts"]
    again = back["stack"]["block_1_dense2"]["kernel"]
    assert np.array_equal(again[1], kernel[1])
    assert not np.delete(again, 1, axis=0).any()
    assert state["zbl_repulsion_energy._c3"] == params["zbl"]["weights"][2]
    assert state["radial_basis_functions._alpha"].shape == ()
    assert state["d4_dispersion_energy.refsys"].dtype == np.int64
    buffer = state["nuclear_embedding.electron_config"]
    assert np.array_equal(buffer, electron_table())


def test_every_name_is_used_exactly_once():
    config = interop.spookynet_config(CONFIG)
    state = interop.export_spookynet(random_tree(config), config)
    with pytest.raises(UserError, match=r"hold \['ghost'\]"):
        interop.import_spookynet({**state, "ghost": np.zeros(1)}, config)
    for name in (
        "module.1.nonlocal_interaction.attention.omega",
        "zbl_repulsion_energy._a4",
        "keep_prob",
        "radial_basis_functions.logc",
    ):
        rest = {key: value for key, value in state.items() if key != name}
        with pytest.raises(UserError, match=rf"lack .*{name}"):
            interop.import_spookynet(rest, config)


def test_buffers_that_do_not_fit_are_named():
    config = interop.spookynet_config(CONFIG)
    state = interop.export_spookynet(random_tree(config), config)
    state["radial_basis_functions.n"] = state["radial_basis_functions.n"] + 1
    with pytest.raises(UserError, match=r"radial_basis_functions.n = .*expected"):
        interop.import_spookynet(state, config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 4}, r"options \['num_heads'\] are not known"),
        ({"activation": "relu"}, "activation is 'relu', supported"),
        ({"use_irreps": False}, "use_irreps is False, supported: True"),
        ({"Zmax": 50}, "Zmax is 50, supported: 87"),
    ],
)
def test_options_without_counterpart_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        interop.spookynet_config({**CONFIG, **changes})
    with pytest.raises(UserError, match=r"config lacks \['cutoff'\]"):
        interop.spookynet_config({"num_features": 6, "num_modules": 1})


@pytest.mark.shared
@pytest.mark.parametrize("case", ["bare", "exactattn", "full"])
def test_recorded_weights_survive_import_and_export(case):
    folder = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "parity"
    fixture = read_fixture(folder / f"spooky_{case}_s0.npz")
    config = interop.spookynet_config(fixture.config)
    tree = interop.import_spookynet(fixture.params, config)
    back = interop.export_spookynet(tree, config)
    assert set(back) == set(fixture.params)
    for name, array in fixture.params.items():
        assert back[name].shape == array.shape, name
        # Buffers are made anew; some files hold them rounded to float32.
        np.testing.assert_allclose(back[name], array, rtol=1e-6, err_msg=name)
    table = fixture.params["nuclear_embedding.electron_config"]
    np.testing.assert_allclose(electron_table(), table, rtol=1e-6)

import jax
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import nff
from tests.interop.nff_reference import state_dict

PLAIN = {"activation": "swish", "cutoff": 3, "feat_dim": 6, "n_rbf": 4, "num_conv": 2}
FULL = {
    **PLAIN,
    "learnable_k": True,
    "skip_connection": {"energy": True},
    "means": {"energy": 0.3},
    "stddevs": {"energy": 2.0},
}


@pytest.mark.parametrize("modelparams", [PLAIN, FULL])
def test_export_undoes_import(modelparams):
    state = state_dict(modelparams)
    config = nff.painn_config(modelparams)
    tree = nff.import_painn(state, config)
    back = nff.export_painn(tree, config)
    assert set(back) == set(state)
    assert all(np.array_equal(back[name], state[name]) for name in state)
    assert len(jax.tree.leaves(tree)) == len(state)


def test_every_name_is_used_exactly_once():
    config, state = nff.painn_config(PLAIN), state_dict(PLAIN)
    with pytest.raises(UserError, match=r"hold \['ghost'\]"):
        nff.import_painn({**state, "ghost": np.zeros(1)}, config)
    name = "update_blocks.1.u_mat.weight"
    state.pop(name)
    with pytest.raises(UserError, match=rf"lack \['{name}'\]"):
        nff.import_painn(state, config)


def test_wrong_shapes_are_named():
    config = nff.painn_config({**PLAIN, "n_rbf": 5})
    with pytest.raises(UserError, match=r"message_0/filter/kernel of shape \(4, 18\)"):
        nff.import_painn(state_dict(PLAIN), config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 4}, r"options \['n_heads'\] are not known"),
        ({"activation": "learnable_swish"}, "activation is 'learnable_swish'"),
        ({"output_keys": ["energy", "charge"]}, "output_keys is"),
        ({"grad_keys": ["energy_grad", "stress"]}, r"grad_keys has \['stress'\]"),
        ({"excl_vol": True}, "excl_vol is on"),
        ({"pool_dic": {"energy": {"name": "mean", "param": {}}}}, "pool_dic"),
    ],
)
def test_options_without_counterpart_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        nff.painn_config({"model": "painn", "modelparams": {**PLAIN, **changes}})


SCHNET = {
    "n_atom_basis": 6,
    "n_filters": 5,
    "n_gaussians": 4,
    "n_convolutions": 2,
    "cutoff": 3.0,
    "trainable_gauss": True,
    "dropout_rate": 0.2,
}


def schnet_state(trainable):
    """Random weights under the reference's names."""
    F, G, R = 6, 5, 4
    rng = np.random.default_rng(0)
    state = {"atom_embed.weight": rng.normal(size=(100, F))}

    def linear(name, fan_in, fan_out):
        state[f"{name}.weight"] = rng.normal(size=(fan_out, fan_in))
        state[f"{name}.bias"] = rng.normal(size=fan_out)

    for layer in range(2):
        name = f"convolutions.{layer}.moduledict"
        moved = 0.1 * rng.normal(size=R) if trainable else 0.0
        state[f"{name}.message_edge_filter.0.offsets"] = np.linspace(0, 3, R) + moved
        state[f"{name}.message_edge_filter.0.width"] = np.full(R, 1.0) + moved
        linear(f"{name}.message_edge_filter.1", R, R)
        linear(f"{name}.message_edge_filter.3", R, G)
        linear(f"{name}.message_node_filter", F, G)
        linear(f"{name}.update_function.0", G, F)
        linear(f"{name}.update_function.2", F, F)
    linear("atomwisereadout.readout.energy.linear0", F, F // 2)
    linear("atomwisereadout.readout.energy.linear2", F // 2, 1)
    return state


@pytest.mark.parametrize("trainable", [True, False])
def test_schnet_export_undoes_import(trainable):
    state = schnet_state(trainable)
    config = nff.schnet_config({**SCHNET, "trainable_gauss": trainable})
    assert config.cutoff_fn == "none"
    tree = nff.import_schnet(state, config)
    back = nff.export_schnet(tree, config)
    assert set(back) == set(state)
    assert all(np.array_equal(back[name], state[name]) for name in state)


def test_every_schnet_name_is_used_exactly_once():
    config, state = nff.schnet_config(SCHNET), schnet_state(True)
    with pytest.raises(UserError, match=r"hold \['ghost'\]"):
        nff.import_schnet({**state, "ghost": np.zeros(1)}, config)
    name = "convolutions.1.moduledict.message_edge_filter.0.width"
    fixed = nff.schnet_config({**SCHNET, "trainable_gauss": False})
    with pytest.raises(UserError, match="with trainable_gauss off they must be equal"):
        nff.import_schnet(state, fixed)
    state.pop(name)
    with pytest.raises(UserError, match=rf"lack \['{name}'\]"):
        nff.import_schnet(state, config)


LINEAR = {"name": "linear", "param": {"in_features": 6, "out_features": 3}}
LAST = {"name": "linear", "param": {"in_features": 3, "out_features": 1}}


def test_the_readout_may_be_named_otherwise():
    parts = [LINEAR, {"name": "swish", "param": {}}, LAST]
    options = {**SCHNET, "readoutdict": {"energy_0": parts}}
    assert nff.schnet_config(options).readout_activation == "silu"
    assert nff.schnet_output_key(options) == "energy_0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box_size": 3}, r"options \['box_size'\] are not known"),
        ({"excl_vol": True}, "excl_vol is on"),
        ({"readoutdict": {"energy": [LINEAR, LAST]}}, "readoutdict is"),
        ({"model": "painn"}, "model is 'painn', expected 'schnet'"),
    ],
)
def test_schnet_options_without_counterpart_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        nff.schnet_config({**SCHNET, **changes})

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

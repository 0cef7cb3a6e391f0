import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import schnetpack

CONFIG = {"cutoff": 3, "n_atom_basis": 6, "n_interactions": 2, "n_rbf": 4}


def state_dict(rbf, shared_filters=False):
    rng = np.random.default_rng(0)
    F, state = 6, {"representation.cutoff_fn.cutoff": np.array([3.0])}

    def linear(name, fan_in, fan_out, bias=True):
        state[f"{name}.weight"] = rng.normal(size=(fan_out, fan_in))
        if bias:
            state[f"{name}.bias"] = rng.normal(size=fan_out)

    inner = "representation"
    if rbf == "gaussian":
        state[f"{inner}.radial_basis.offsets"] = np.linspace(0.5, 3, 4)
        state[f"{inner}.radial_basis.widths"] = np.full(4, 0.8)
    else:
        state[f"{inner}.radial_basis.freqs"] = np.arange(1, 5) * np.pi / 3
    state[f"{inner}.embedding.weight"] = rng.normal(size=(100, F))
    linear(f"{inner}.filter_net", 4, 3 * F if shared_filters else 6 * F)
    for layer in range(2):
        context = f"{inner}.interactions.{layer}.interatomic_context_net"
        linear(f"{context}.0", F, F)
        linear(f"{context}.1", F, 3 * F)
        mixing = f"{inner}.mixing.{layer}"
        linear(f"{mixing}.intraatomic_context_net.0", 2 * F, F)
        linear(f"{mixing}.intraatomic_context_net.1", F, 3 * F)
        linear(f"{mixing}.mu_channel_mix", F, 2 * F, bias=False)
    linear("output_modules.0.outnet.0", F, F // 2)
    linear("output_modules.0.outnet.1", F // 2, 1)
    return state


@pytest.mark.parametrize("rbf", ["gaussian", "bessel"])
def test_blocks_find_their_place(rbf):
    state = state_dict(rbf)
    config = schnetpack.painn_config({**CONFIG, "rbf": rbf})
    tree = schnetpack.import_painn(state, config)["params"]
    theirs = np.split(state["representation.filter_net.weight"].T, 6, axis=1)
    # The second layer's filters of vectors, which come last there and first here.
    ours = tree["message_1"]["filter"]["kernel"][:, :6]
    assert np.array_equal(ours, theirs[5])
    mix = state["representation.mixing.0.mu_channel_mix.weight"]
    assert np.array_equal(tree["update_0"]["V"]["kernel"], mix[:6].T)
    assert np.array_equal(tree["update_0"]["U"]["kernel"], mix[6:].T)


def test_shared_filters_are_repeated():
    config = schnetpack.painn_config(
        {**CONFIG, "rbf": "bessel", "shared_filters": True}
    )
    tree = schnetpack.import_painn(state_dict("bessel", True), config)["params"]
    filters = [tree[f"message_{layer}"]["filter"]["kernel"] for layer in (0, 1)]
    assert np.array_equal(*filters)


def test_buffers_must_fit_the_config():
    config = schnetpack.painn_config({**CONFIG, "rbf": "bessel", "cutoff": 4})
    with pytest.raises(UserError, match=r"cutoff_fn.cutoff = .*3.*, the config gives"):
        schnetpack.import_painn(state_dict("bessel"), config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rbf": "bernstein"}, "rbf is 'bernstein'"),
        ({"rbf": "bessel", "charge_net": 1}, r"options \['charge_net'\] are not known"),
        ({}, r"config lacks \['rbf'\]"),
    ],
)
def test_options_without_counterpart_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        schnetpack.painn_config({**CONFIG, **changes})


def schnet_state(n_filters):
    rng = np.random.default_rng(0)
    F, G, R, inner = 6, n_filters, 4, "representation"
    state = {
        f"{inner}.cutoff_fn.cutoff": np.array([3.0], np.float32),
        f"{inner}.radial_basis.offsets": np.linspace(0.5, 3, R),
        f"{inner}.radial_basis.widths": np.full(R, 0.8),
        f"{inner}.embedding.weight": rng.normal(size=(100, F)),
    }

    def linear(name, fan_in, fan_out, bias=True):
        state[f"{name}.weight"] = rng.normal(size=(fan_out, fan_in))
        if bias:
            state[f"{name}.bias"] = rng.normal(size=fan_out)

    for layer in range(2):
        name = f"{inner}.interactions.{layer}"
        linear(f"{name}.in2f", F, G, bias=False)
        linear(f"{name}.filter_network.0", R, G)
        linear(f"{name}.filter_network.1", G, G)
        linear(f"{name}.f2out.0", G, F)
        linear(f"{name}.f2out.1", F, F)
    linear("output_modules.0.outnet.0", F, F // 2)
    linear("output_modules.0.outnet.1", F // 2, 1)
    return state


@pytest.mark.parametrize("options", [{"n_filters": 5}, {}])
def test_schnet_export_undoes_import(options):
    state = schnet_state(options.get("n_filters", 6))
    config = schnetpack.schnet_config({**CONFIG, "rbf": "gaussian", **options})
    tree = schnetpack.import_schnet(state, config)
    back = schnetpack.export_schnet(tree, config)
    assert set(back) == set(state)
    assert all(np.array_equal(back[name], state[name]) for name in state)
    with pytest.raises(UserError, match=r"hold \['ghost'\]"):
        schnetpack.import_schnet({**state, "ghost": np.zeros(1)}, config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rbf": "bessel"}, "rbf is 'bessel', supported: gaussian"),
        ({"rbf": "gaussian", "epsilon": 1}, r"options \['epsilon'\] are not known"),
        ({"rbf": "gaussian", "model": "painn"}, "model is 'painn', expected 'schnet'"),
    ],
)
def test_schnet_options_without_counterpart_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        schnetpack.schnet_config({**CONFIG, **changes})

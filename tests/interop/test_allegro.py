import jax
import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop.allegro import export_allegro, import_allegro
from chemscale_jax.interop.allegro_options import config_2022, config_2025
from chemscale_jax.models import allegro

COMMON = {
    "type_names": ["H", "O"],
    "r_max": 3.0,
    "l_max": 2,
    "num_layers": 2,
    "avg_num_neighbors": 4.0,
}
OLD = {
    **COMMON,
    "parity": "o3_full",
    "num_basis": 3,
    "env_embed_multiplicity": 2,
    "two_body_latent_mlp_latent_dimensions": [4, 6],
    "latent_mlp_latent_dimensions": [5, 6],
    "env_embed_mlp_latent_dimensions": [],
    "edge_eng_mlp_latent_dimensions": [4],
    "edge_eng_mlp_nonlinearity": None,
}
NEW = {
    **COMMON,
    "parity": True,
    "num_scalar_features": 6,
    "num_tensor_features": 2,
    "scalar_embed_mlp_hidden_layers_width": 4,
    "allegro_mlp_hidden_layers_width": 5,
    "radial_chemical_embed": {
        "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
        "num_bessels": 3,
    },
}
CONFIGS = {"2022": config_2022(OLD), "2025": config_2025(NEW)}


@pytest.fixture(params=CONFIGS)
def form(request):
    return request.param


def tree_of(config):
    """Random parameters; constants as they start."""
    model = allegro.make_model_from(config)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda x: rng.normal(size=x.shape), shapes)
    tree["constants"]["avg_num_neighbors"] = np.array(config.avg_num_neighbors)
    if config.form == "2022":
        tree["constants"]["energy_scales"] = np.ones(2)
        tree["constants"]["energy_shifts"] = np.zeros(2)
    return tree


def test_import_undoes_export(form):
    tree = tree_of(CONFIGS[form])
    state = export_allegro(tree, CONFIGS[form])
    back = import_allegro(state, CONFIGS[form])
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_every_name_is_used_exactly_once(form):
    config = CONFIGS[form]
    state = export_allegro(tree_of(config), config)
    with pytest.raises(UserError, match=r"hold \['ghost'\]"):
        import_allegro({**state, "ghost": np.zeros(1)}, config)
    for name in state:
        fewer = {key: value for key, value in state.items() if key != name}
        with pytest.raises(UserError, match=r"weights lack .*"):
            import_allegro(fewer, config)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("2022", "func.allegro.tps.0._big_w3j"),
        ("2022", "func.allegro.env_sum_normalizations"),
        ("2022", "func.allegro.per_layer_cutoffs"),
        ("2025", "model.func.allegro.tps.1.w3j"),
        ("2025", "model.func.edge_norm._rmax_recip"),
    ],
)
def test_what_follows_from_the_config_is_checked(form, name):
    config = CONFIGS[form]
    state = export_allegro(tree_of(config), config)
    state[name] = state[name] * 1.001
    with pytest.raises(UserError, match=f"another {name} than the config"):
        import_allegro(state, config)


def test_channels_come_first_there():
    """Columns of environment weights: channel-major there, irrep-major here."""
    config = CONFIGS["2025"]
    state = export_allegro(tree_of(config), config)
    theirs = state["model.func.tensor_embed.env_embed_linear.mlp.0.weight"]
    ours = import_allegro(state, config)["params"]["weights"]["kernel_0"]
    # Channel 1 of l = 2: their column 1 * 3 + 2, ours 2 * 2 + 1.
    assert np.array_equal(ours[:, 5], theirs[:, 5])
    assert np.array_equal(ours[:, 1], theirs[:, 3])
    assert np.array_equal(ours[:, 2], theirs[:, 1])


def test_scales_have_no_place_in_the_older_form():
    tree = tree_of(CONFIGS["2022"])
    tree["constants"]["energy_scales"] = np.array([1.0, 2.0])
    with pytest.raises(UserError, match="energy_scales is .*can only stand for"):
        export_allegro(tree, CONFIGS["2022"])


@pytest.mark.parametrize(
    ("read", "options", "changes", "message"),
    [
        (config_2022, OLD, {"heads": 2}, r"options \['heads'\] are not known"),
        (config_2022, OLD, {"latent_resnet": False}, "latent_resnet is False"),
        (config_2022, OLD, {"type_names": ["H", "Xx"]}, "type_names: .*Xx"),
        (
            config_2022,
            OLD,
            {"env_embed_mlp_latent_dimensions": [8]},
            r"latent_dimensions is \[8\], supported: \[\]",
        ),
        (config_2025, NEW, {"pair_potential": {}}, "pair_potential is {}"),
        (
            config_2025,
            NEW,
            {"readout_mlp_nonlinearity": "mish"},
            "readout_mlp_nonlinearity is 'mish', supported: silu, null",
        ),
        (
            config_2025,
            NEW,
            {"radial_chemical_embed": {"_target_": "a.TwoBodySplineScalarEmbed"}},
            "radial_chemical_embed is 'a.TwoBodySpline",
        ),
        (
            config_2025,
            NEW,
            {"avg_num_neighbors": {"H": 3.0, "O": 5.0}},
            "avg_num_neighbors is .*, supported: one number",
        ),
    ],
)
def test_options_without_counterpart_are_refused(read, options, changes, message):
    with pytest.raises(UserError, match=message):
        read({**options, **changes})

import functools
import json
import os
import pathlib

import jax
import numpy as np
import pytest

from chemscale_jax.chem.units import KCAL_PER_MOL_EV
from chemscale_jax.commands import COMMANDS, load
from chemscale_jax.core.errors import UserError
from chemscale_jax.core.workdir import Workdir
from chemscale_jax.inference.force_field import open_force_field
from chemscale_jax.interop import nff
from chemscale_jax.interop.families import FAMILIES, import_force_field, read_weights
from chemscale_jax.models import ENERGY_MODELS, painn
from chemscale_jax.models.energy import energy_and_forces
from chemscale_jax.training.checkpoint import best_step
from tests.interop.torch_writer import Storage, tensor, write_zip
from tests.models.molecules import MOLECULE, pack_of

OPTIONS = {
    "activation": "swish",
    "cutoff": 3.0,
    "feat_dim": 6,
    "n_rbf": 4,
    "num_conv": 2,
    "means": {"energy": 1.5},
    "stddevs": {"energy": 2.0},
}
run = load("import").main


def outputs(model, *args):
    """Energies and forces, compiled in one go."""
    return jax.jit(functools.partial(energy_and_forces, model))(*args)


@pytest.fixture(scope="module")
def state():
    """The state dict that NeuralForceField's PaiNN of these options has."""
    config = nff.painn_config(OPTIONS)
    variables = jax.jit(painn.make_model_from(config).init)(jax.random.key(0))
    return nff.export_painn(jax.device_get(variables), config)


@pytest.fixture
def files(tmp_path, state):
    """A torch file with those weights among others, and the file of options."""
    storages = [
        Storage(np.ascontiguousarray(x), str(i)) for i, x in enumerate(state.values())
    ]
    tensors = {}
    for name, storage in zip(state, storages, strict=True):
        array = storage.data
        strides = [step // array.itemsize for step in array.strides]
        tensors[f"model.{name}"] = tensor(storage, array.shape, tuple(strides))
    tensors["loss.weight"] = tensors["model.readout_blocks.0.readoutdict.energy.1.bias"]
    write_zip(tmp_path / "w.pth", {"state_dict": tensors}, storages)
    (tmp_path / "options.json").write_text(json.dumps(OPTIONS))
    return [
        f"--weights={tmp_path / 'w.pth'}",
        f"--options={tmp_path / 'options.json'}",
        "--prefix=model.",
    ]


def test_a_torch_file_becomes_a_workdir(files, state, tmp_path, capsys):
    path = tmp_path / "run"
    assert run(["--family=nff_painn", f"--workdir={path}", *files]) == 0
    assert "painn from" in capsys.readouterr().out
    workdir = Workdir(path)
    assert workdir.run()["state"] == "finished"
    assert best_step(workdir) == 0
    field = open_force_field(workdir)
    assert field.artifacts["reference_energies_ev"] == dict.fromkeys("HCNO", 0.0)

    config = nff.painn_config(OPTIONS)
    tree = nff.import_painn(state, config)
    theirs, ours = painn.make_model_from(config), field.model
    pack = pack_of(MOLECULE, dtype="float32")
    kcal = outputs(theirs, tree["params"], tree["constants"], pack)
    found = outputs(ours, field.params, field.constants, pack)
    for expected, array in zip(kcal, found, strict=True):
        # The scale is applied in another order; rounding of float32.
        np.testing.assert_allclose(
            array, np.asarray(expected) * KCAL_PER_MOL_EV, rtol=3e-6, atol=1e-6
        )
    with pytest.raises(UserError, match="holds a run already|another config"):
        run(["--family=nff_painn", f"--workdir={path}", *files])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family=mace"], "family is 'mace', expected one of"),
        (["--energy-unit=kcal"], "did you mean 'kcal/mol'"),
        (["--prefix="], r"weights lack"),
        (["--prefix=net."], "no array whose name begins with 'net.'"),
        (["--options=absent.json"], "cannot be read"),
        (["--weights=absent.pth"], "cannot be read"),
        (["--weights=absent.npz"], "no .npz of arrays"),
        (["--elements=H,Xx"], "Xx"),
    ],
)
def test_mistakes_leave_no_workdir(files, tmp_path, arguments, message):
    path = tmp_path / "run"
    with pytest.raises(UserError, match=message):
        run(["--family=nff_painn", f"--workdir={path}", *files, *arguments])
    assert not (path / "config.json").exists()


def test_options_must_be_an_object(files, tmp_path):
    for text, message in (("[1]", "holds a list"), ("{", "not JSON")):
        (tmp_path / "options.json").write_text(text)
        with pytest.raises(UserError, match=message):
            run(["--family=nff_painn", f"--workdir={tmp_path / 'run'}", *files])


def test_every_family_is_of_a_known_model():
    assert {family.model for family in FAMILIES.values()} <= set(ENERGY_MODELS)
    assert "import" in COMMANDS


# Files of the reference data, and whether their energies can be rescaled.
FIXTURES = {
    "nff_painn_s0": True,
    "spk_painn_s0": True,
    "nff_schnet_s0": True,
    "spk_schnet_s0": True,
    "allegro2022_s0": True,
    "allegro_s0": True,
    "spooky_bare_s0": False,
    "spooky_full_s0": False,
}


@pytest.mark.shared
@pytest.mark.parametrize("name", FIXTURES)
def test_reference_weights(name, tmp_path):
    file = pathlib.Path(os.environ["CHEMSCALE_SHARED"]) / "parity" / f"{name}.npz"
    with np.load(file) as fixture:
        family = json.loads(str(fixture["meta"]))["family"]
        options = json.loads(str(fixture["config"]))
    weights = read_weights(file, "param/")
    if not FIXTURES[name]:
        with pytest.raises(UserError, match="energies are in eV"):
            import_force_field(family, weights, options, "kcal/mol")
    (tmp_path / "options.json").write_text(json.dumps(options))
    arguments = [
        f"--family={family}",
        f"--weights={file}",
        "--prefix=param/",
        f"--options={tmp_path / 'options.json'}",
    ]
    fields = []
    for unit in ("eV", "kcal/mol") if FIXTURES[name] else ("eV",):
        path = tmp_path / unit.replace("/", "")
        assert run([*arguments, f"--energy-unit={unit}", f"--workdir={path}"]) == 0
        field = open_force_field(Workdir(path))
        pack = pack_of(MOLECULE, dtype="float32")
        if field.model.pair_cutoff_ang:
            receivers, senders = np.nonzero(~np.eye(5, dtype=bool))
            pack = pack._replace(
                pair_receivers_P=receivers.astype(np.int32),
                pair_senders_P=senders.astype(np.int32),
            )
        fields.append(outputs(field.model, field.params, field.constants, pack))
    assert all(np.isfinite(x).all() for x in fields[0])
    for ev, kcal in zip(fields[0], fields[-1], strict=True):
        factor = KCAL_PER_MOL_EV if len(fields) > 1 else 1.0
        np.testing.assert_allclose(np.asarray(ev) * factor, kcal, rtol=1e-4, atol=1e-5)

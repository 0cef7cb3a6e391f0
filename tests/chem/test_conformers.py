import dataclasses
import multiprocessing
import random

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers

from chemscale_jax.chem import conformers
from chemscale_jax.chem.conformer_cache import read_geometry, write_geometry
from chemscale_jax.chem.conformers import (
    FRAGMENT_GAP_ANG,
    ConformerSettings,
    cache_key,
    conform,
    conform_some,
)
from chemscale_jax.chem.molecule_record import (
    failed_record,
    record_of,
    record_of_smiles,
)
from chemscale_jax.core.errors import UserError
from tests.chem.test_molecule_record import same

ONE = ConformerSettings()
ALANINE = "C[C@H](N)C(=O)O"


@pytest.mark.parametrize(
    "smiles", [ALANINE, "CC(=O)[O-].[Na+]", "C1CC2(C1)CCCNC2", "[2H]OCC", "F/C=C/Cl"]
)
def test_conformers_do_not_depend_on_how_a_molecule_is_written(smiles):
    settings = ConformerSettings(count=2)
    wanted = conform(record_of_smiles(smiles), settings)
    assert wanted.status == "3d", wanted.reason
    assert wanted.positions_KN3.shape == (2, len(wanted.species_N), 3)
    assert wanted.positions_KN3.dtype == np.float32
    mol = Chem.MolFromSmiles(smiles)
    for _ in range(3):
        text = Chem.MolToSmiles(mol, doRandom=True)
        assert same(wanted, conform(record_of_smiles(text), settings)), text
    order = list(range(mol.GetNumAtoms()))
    random.Random(0).shuffle(order)
    again = record_of(Chem.RenumberAtoms(mol, order))
    assert same(wanted, conform(again, settings))


def test_more_conformers_begin_with_the_same_ones():
    record = record_of_smiles("CCCCN")
    five = conform(record, ConformerSettings(count=5)).positions_KN3
    assert np.array_equal(five[:2], conform(record, ConformerSettings(count=2))[6])
    assert len({one.tobytes() for one in five}) == 5
    other = conform(record, ConformerSettings(count=2, seed=1)).positions_KN3
    assert not np.array_equal(other, five[:2])


def test_geometries_are_those_of_the_molecule():
    made = conform(record_of_smiles("C/C=C/C#N"), ONE)
    lengths = {}
    for (i, j), (kind, _, _) in zip(made.bonds_E2, made.bond_features_E3, strict=True):
        between = made.positions_KN3[0, i] - made.positions_KN3[0, j]
        lengths.setdefault(int(kind), []).append(np.linalg.norm(between))
    assert all(1.40 < length < 1.52 for length in lengths[0])
    assert 1.30 < lengths[1][0] < 1.36
    assert 1.14 < lengths[2][0] < 1.18


def test_the_ions_of_a_salt_are_apart():
    made = conform(record_of_smiles("CC(=O)[O-].[Na+].[Cl-]"), ONE)
    positions = made.positions_KN3[0]
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    i, j = np.triu_indices(len(positions), 1)
    assert distances[i, j].min() > 1.2
    pair = conform(record_of_smiles("[Na+].[Cl-]"), ONE).positions_KN3[0]
    assert np.isclose(np.linalg.norm(pair[0] - pair[1]), FRAGMENT_GAP_ANG, atol=1e-5)


def test_uff_helps_where_mmff_knows_nothing():
    smiles = "CB(C)C"
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert not rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol)
    assert conform(record_of_smiles(smiles), ONE).status == "3d"


def test_every_status(monkeypatch):
    record = record_of_smiles(ALANINE)
    short = conform(record, ConformerSettings(count=2, relax_iterations=1))
    assert short.status == "unconverged"
    assert "MMFF94 was not at rest after 1 iterations for 2 of 2" in short.reason
    unknown = conform(record_of_smiles("[O-2].[U+6]"), ONE)
    assert unknown.status == "unconverged"
    assert unknown.reason == "neither MMFF94 nor UFF knows all of its atoms"
    still = conform(record, ConformerSettings(relax_iterations=0))
    assert (still.status, still.reason) == ("unconverged", "conformers are as embedded")
    made = conform(record_of_smiles("C1(C2)(C3)CC(C2)(C3)C1"), ConformerSettings())
    assert (made.status, made.reason) == ("2d", "no geometry was found in 20 attempts")
    assert np.array_equal(made.positions_KN3, made.flat_N3[None])
    monkeypatch.setattr(conformers, "_embed", lambda *_: True)
    made = conform(record, ConformerSettings(attempts=3))
    assert (made.status, made.reason) == ("2d", "no geometry was found in 6 attempts")
    assert np.array_equal(made.positions_KN3, record.flat_N3[None])

    def broken(*_):
        raise RuntimeError("Pre-condition Violation\nmore")

    monkeypatch.setattr(conformers, "_embed", broken)
    made = conform(record, ONE)
    assert (made.status, made.reason) == ("2d", "RDKit: Pre-condition Violation")


def test_what_failed_or_was_given_stays():
    failed = failed_record("it", "too large")
    assert conform(failed, ONE) is failed
    record = record_of_smiles("CCO")
    given = record._replace(status="given", reason="")
    assert conform(given, ONE) is given


def test_one_atom_needs_no_search(monkeypatch):
    monkeypatch.setattr(conformers, "_embed", lambda *_: 1 / 0)
    for smiles in ("C", "[U+6]", "[He]"):
        made = conform(record_of_smiles(smiles), ONE)
        assert (made.status, made.positions_KN3.tolist()) == ("3d", [[[0, 0, 0]]])


def test_atoms_in_another_order_are_refused():
    record = record_of(Chem.MolFromSmiles("OCC"), "it", canonical=False)
    with pytest.raises(ValueError, match="record 'it' are not in canonical order"):
        conform(record, ONE)


def test_large_molecules_are_relaxed_less(monkeypatch):
    asked = []

    def relax(mol, maxIters):
        asked.append(maxIters)
        return [(1, 0.0)] * mol.GetNumConformers()

    monkeypatch.setattr(rdForceFieldHelpers, "MMFFOptimizeMoleculeConfs", relax)
    monkeypatch.setattr(conformers, "RELAX_WORK", 100 * 20**2)
    record = record_of_smiles("CCCCCC")  # 20 atoms
    made = conform(record, ConformerSettings(relax_iterations=500))
    assert asked == [100]
    assert "after 100 iterations" in made.reason
    conform(record, ConformerSettings(relax_iterations=50))
    assert asked == [100, 50]


def test_finished_conformers_are_kept(tmp_path, monkeypatch):
    cache = tmp_path / "new" / "conformers.sqlite"
    record = record_of_smiles(ALANINE, "it")
    wanted = conform(record, ONE, cache)
    assert same(wanted, conform(record, ONE))
    cage = record_of_smiles("CCN")
    with monkeypatch.context() as patch:
        patch.setattr(conformers, "_embed", lambda *_: True)
        missing = conform(cage, ONE, cache)
    assert missing.status == "2d"
    monkeypatch.setattr(conformers, "_embed", lambda *_: 1 / 0)
    assert same(wanted, conform(record, ONE, cache))
    renamed = conform(record_of_smiles(ALANINE, "other"), ONE, cache)
    assert same(wanted, renamed, "name")
    assert same(missing, conform(cage, ONE, cache))
    with pytest.raises(ZeroDivisionError):
        conform(record, ConformerSettings(seed=1), cache)


def test_what_depends_on_the_clock_is_not_kept(tmp_path, monkeypatch):
    cache = tmp_path / "conformers.sqlite"
    record = record_of_smiles("CCO")
    monkeypatch.setattr(conformers, "_embed", lambda *_: False)
    made = conform(record, ConformerSettings(embed_s=7), cache)
    assert made.reason == "no geometry was found in 7 seconds"
    assert not cache.exists()


def test_time_for_embedding_is_limited():
    record = record_of_smiles("C" * 60)
    made = conform(record, ConformerSettings(count=50, embed_s=1))
    assert (made.status, made.reason) == ("2d", "no geometry was found in 1 seconds")


@pytest.mark.parametrize("name", ["count", "attempts", "embed_s", "relax_iterations"])
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(UserError, match=f"{name} of conformers is -1: it must be"):
        ConformerSettings(**{name: -1})


def test_the_key_has_all_that_matters():
    keys = {cache_key("C", ONE), cache_key("N", ONE)}
    for field in dataclasses.fields(ConformerSettings):
        changed = {field.name: getattr(ONE, field.name) + 1}
        keys.add(cache_key("C", dataclasses.replace(ONE, **changed)))
    assert len(keys) == 2 + len(dataclasses.fields(ConformerSettings))


def _write_some(path, first):
    for n in range(first, first + 40):
        positions = np.full((2, 3, 3), n, np.float32)
        write_geometry(path, f"key {n}", positions, "3d", "")


def test_processes_share_a_cache(tmp_path):
    path = tmp_path / "conformers.sqlite"
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_write_some, args=(path, first)) for first in (0, 20)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    for n in range(60):
        found = read_geometry(path, f"key {n}")
        assert found is not None
        assert np.array_equal(found[0], np.full((2, 3, 3), n, np.float32))
        assert found[1:] == ("3d", "")
    assert read_geometry(path, "key 60") is None


def test_a_file_that_is_no_cache_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a cache " * 100)
    with pytest.raises(UserError, match=r"notes.txt cannot be used \(.*\): delete it"):
        conform(record_of_smiles("CCO"), ONE, path)


def test_a_job_survives_what_was_given_up():
    records = [record_of_smiles("CCO"), record_of_smiles("CCN"), failed_record("", "x")]
    seen = []
    made = conform_some(records, {1: "crashed", 2: "too_slow"}, seen.append, ONE)
    assert seen == [0, 1, 2]
    assert [one.status for one in made] == ["3d", "2d", "failed"]
    assert made[1].reason == "making a conformer failed: crashed"
    assert same(made[0], conform(records[0], ONE))

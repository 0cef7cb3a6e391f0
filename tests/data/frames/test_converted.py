"""Conversion: what is left out, counted and named; cells, charges and parts."""

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.data.frames.converted import ConvertedSource
from chemscale_jax.data.frames.frames import Bad, Frames
from tests.data.reader_files import WATER, frames


def _source(tmp_path, blocks):
    path = tmp_path / "file.any"
    path.write_text("x")

    def read(facts):
        facts["noted"] = 1
        yield from blocks

    return ConvertedSource(read, [path], {"reader": "test"}, {"method": "none"})


def test_bad_frames_are_left_out_and_counted(tmp_path):
    x, e, f = frames(n=8)
    x[1, 0] = np.nan
    x[2, 0] = x[2, 1]
    e[3] = np.nan
    f[4, 1, 2] = 1e300
    block = Frames("water", np.arange(8), WATER, x, e, f)
    empty = Frames("none", np.arange(2), WATER[:0], x[:2, :0], e[:2], f[:2, :0])
    source = _source(
        tmp_path,
        [
            block,
            Bad("broken line", "line 7"),
            empty,
            block._replace(energy=None, forces=None, name="mute"),
            block._replace(species=np.array([8, 1, 300]), name="odd"),
        ],
    )
    report = source.report
    assert source._row.tolist() == [0, 5, 6, 7]
    assert report["nan_rows"] == 2 + 2
    assert (report["rows"], report["used"]) == (27, 4)
    assert sum(report["skipped"].values()) == 23
    assert report["skipped"]["broken line"] == 1
    assert report["skipped"]["no atoms"] == 2
    assert report["skipped"]["neither energy nor forces"] == 8
    assert report["skipped_examples"]["broken line"] == ["line 7"]
    assert "water/3" in str(report["skipped_examples"])
    assert report["noted"] == 1
    assert source.largest_train == (0, "")
    assert source.train_warning(10**9) == ""


def test_nothing_usable_is_an_error(tmp_path):
    x, e, f = frames(n=1)
    blocks = [
        Bad("broken line", "line 7"),
        Frames("w", np.arange(1), WATER, 0 * x, e, f),
    ]
    with pytest.raises(
        UserError, match=r"none of the 2 frames.*two atoms.*broken line"
    ):
        _source(tmp_path, blocks)


def test_records_of_all_kinds_keep_their_order(tmp_path):
    """Runs are joined, kinds are not mixed up, and cells stay with their records."""
    x, e, f = frames(n=6)
    cell = 4.0 * np.eye(3)[None]
    kinds = [
        {},
        {},
        {"cell": cell},
        {"charge": 1.0, "spin": 2.0, "cell": 2 * cell},
        {"forces": None},
        {"energy": None},
    ]
    blocks = [
        Frames(
            "w",
            np.array([i]),
            WATER if i != 1 else WATER[::-1],
            **{"positions": x[i : i + 1], "energy": e[i : i + 1]}
            | {"forces": f[i : i + 1], **kind},
        )
        for i, kind in enumerate(kinds)
    ]
    source = _source(tmp_path, blocks)
    assert source.periodic
    assert source.group.tolist() == [0, 1, 0, 0, 0, 0]
    for i in range(6):
        record = source[i]
        np.testing.assert_allclose(record.positions, x[i], atol=1e-6)
        if i != 4:
            np.testing.assert_allclose(record.forces, f[i], atol=1e-6)
    cells = [source[i].cell for i in range(6)]
    assert [c is not None for c in cells] == [False, False, True, True, False, False]
    np.testing.assert_array_equal(cells[3], 2 * cell[0])
    assert (source[3].charge, source[3].spin) == (1, 2)
    assert [source[i].forces_mask for i in range(6)] == [True] * 4 + [False, True]
    assert [source[i].energy_mask for i in range(6)] == [True] * 5 + [False]
    assert np.isnan(source.total_energy[5])
    assert source.report["without_forces"] == 1
    positions = np.concatenate([s.positions for s in source.stacks()])
    np.testing.assert_allclose(positions, x, atol=1e-6)

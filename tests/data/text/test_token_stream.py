"""The stream of token rows: each molecule once, the same for any process count."""

import json
import pickle
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from chemscale_jax.core.errors import UserError
from chemscale_jax.data import STREAMS
from chemscale_jax.data.text.token_store import StoreWriter
from chemscale_jax.data.text.token_stream import FORMS, TokenStream, row_shapes
from tests.data.token_files import pubchem_lengths, store_of, text_of

CONFIG = {
    "seed": 0,
    "init_from": "",
    "data": {
        "stream": "tokens",
        "source": "store",
        "path": "",
        "column": "",
        "tfds_split": "train",
        "notation": "selfies",
        "vocabulary": "",
        "embedded_molecules": 60_000,
        "valid_fraction": 0.1,
        "valid_molecules_max": 1000,
        "split_seed": 5,
        "train_molecules": 0,
        "train_tokens": 0,
        "train_rows": 0,
        "deduplicate": True,
    },
    "batch": {
        "form": "packed",
        "rows": 4,
        "length": 128,
        "buckets": (),
        "tokens": 0,
        "workers": 0,
        "prefetch": 0,
    },
}
LENGTHS = np.minimum(pubchem_lengths(600), 118) - 2
# Short rows, and long ones for the rest.
SHORT = {"batch.form": "bucketed", "batch.buckets": (48, 120), "batch.tokens": 600}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens") / "store"
    keys = np.random.default_rng(1).integers(0, 2000, (len(LENGTHS), 2))
    store = store_of(LENGTHS, keys)
    with StoreWriter(folder, store.vocabulary) as writer:
        writer.append(
            store.tokens, store.lengths, store.lines, store.keys, store.heavy_atoms
        )
        writer.finish({"failed": {}}, {})
    return folder


def _stream(path, process=(0, 1), **changes) -> TokenStream:
    config = ConfigDict(CONFIG)
    config.update_from_flattened_dict({"data.path": str(path), **changes})
    stream = STREAMS["tokens"](config, *process)
    assert isinstance(stream, TokenStream)
    return stream


def _forms(path, **changes):
    fields = [{"batch.form": "packed"}, {"batch.form": "cut"}, SHORT]
    assert {form["batch.form"] for form in fields} == set(FORMS)
    return [_stream(path, **form, **changes) for form in fields]


def _assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def _texts(epoch):
    """The molecules of an epoch of whole ones, as read from its batches."""
    texts = []
    for batch in (epoch[i] for i in range(len(epoch))):
        for tokens, segment, position in zip(*batch, strict=True):
            assert (np.diff(segment[segment > 0]) >= 0).all()
            for number in range(1, segment.max(initial=0) + 1):
                own = segment == number
                assert position[own].tolist() == list(range(own.sum()))
                texts.append(tokens[own].tolist())
            assert (tokens[segment == 0] == 1).all()
    return texts


@pytest.mark.parametrize("part", ["train", "valid"])
@pytest.mark.parametrize("form", [{}, SHORT])
def test_whole_molecules_are_there_exactly_once(path, form, part):
    stream = _stream(path, **form)
    epoch = stream.train_epoch(3) if part == "train" else stream.evals["valid"]
    members = getattr(stream.split, part)
    expected = [text_of(stream.store, i) for i in members]
    assert sorted(_texts(epoch)) == sorted(expected)
    lines = [name for i in range(len(epoch)) for name in epoch.record_ids(i)]
    assert sorted(lines) == sorted(f"line {3 * i + 7}" for i in members)
    # In a batch, names and molecules have the same order.
    by_line = {f"line {3 * i + 7}": text_of(stream.store, i) for i in members}
    batch = epoch[1]
    named = [t for name in epoch.record_ids(1) for t in by_line[name]]
    assert batch.tokens_BL[batch.segment_BL > 0].tolist() == named
    with pytest.raises(IndexError):
        epoch[len(epoch)]


def test_cut_rows_hold_the_whole_text(path):
    stream = _stream(path, **{"batch.form": "cut", "batch.length": 50})
    epochs: Any = (stream.train_epoch(1), stream.evals["valid"])
    for epoch, rest in zip(epochs, (49, 0), strict=True):
        batches = [epoch[i] for i in range(len(epoch))]
        real = [b.tokens_BL[b.segment_BL > 0] for b in batches]
        text = [t for i in epoch.plan.order for t in text_of(stream.store, i)]
        read = np.concatenate(real).tolist()
        assert read == text[: len(read)]
        assert len(text) - len(read) <= rest
        # The first row of a batch may begin within a molecule, which is named too.
        ids = epoch.record_ids(1)
        first = np.searchsorted(epoch.plan.stops, 200, side="right")
        assert ids[0] == f"line {3 * epoch.plan.order[first] + 7}"
        assert (batches[0].position_BL == np.arange(50)[None]).all()
    assert sorted(epochs[1].plan.order) == sorted(stream.split.valid)


def test_batches_have_the_promised_shapes(path):
    for stream in _forms(path):
        specs = [
            jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in stream.batch_specs
        ]
        seen = set()
        for epoch in (stream.train_epoch(0), stream.evals["valid"]):
            for i in range(len(epoch)):
                found = jax.tree.map(lambda x: (x.shape, x.dtype), epoch[i])
                assert found in specs
                seen.add(found.tokens_BL)
        assert len(seen) == len(specs)


def test_batches_are_a_function_of_seed_epoch_and_index(path):
    for first, second in zip(_forms(path), _forms(path), strict=True):
        _assert_equal(first.train_epoch(5)[3], second.train_epoch(5)[3])
        names = [first.train_epoch(e).record_ids(0) for e in (0, 1)]
        assert names[0] != names[1]
    for first, other in zip(_forms(path), _forms(path, seed=1), strict=True):
        assert first.train_epoch(0).record_ids(0) != other.train_epoch(0).record_ids(0)
        # Neither the split nor the validation batches know of the seed of the run.
        assert first.split.train.tolist() == other.split.train.tolist()
        _assert_equal(first.evals["valid"][0], other.evals["valid"][0])


def test_processes_share_the_rows(path):
    for k, whole in enumerate(_forms(path)):
        parts = [_forms(path, process=(p, 4))[k] for p in range(4)]
        for epochs in (
            [s.train_epoch(2) for s in (whole, *parts)],
            [s.evals["valid"] for s in (whole, *parts)],
        ):
            assert len({len(epoch) for epoch in epochs}) == 1
            for i in range(len(epochs[0])):
                joined = jax.tree.map(
                    lambda *x: np.concatenate(x), *(e[i] for e in epochs[1:])
                )
                _assert_equal(joined, epochs[0][i])
        assert whole.batch_specs == parts[0].batch_specs
    with pytest.raises(UserError, match=r"batch.rows=4 cannot be shared by 3"):
        _stream(path, process=(0, 3))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_epoch_goes_on_from_any_batch(path, prefetch):
    for stream in _forms(path, **{"batch.prefetch": prefetch}):
        epoch = stream.train_epoch(1)
        for start in (0, 5, len(epoch)):
            batches = list(stream.iterate(epoch, start))
            assert len(batches) == len(epoch) - start
            for i, batch in enumerate(batches):
                _assert_equal(batch, epoch[start + i])
        copy = pickle.loads(pickle.dumps(epoch))
        _assert_equal(copy[1], epoch[1])


def test_molecules_without_room_are_named(path):
    stream = _stream(path, **{"batch.length": 64})
    split = stream.split
    assert len(split.too_long) == sum(split.summary["too_long"].values()) > 0
    assert (stream.store.lengths[split.too_long] + 2 > 64).all()
    assert (stream.store.lengths[[*split.train, *split.valid]] + 2 <= 64).all()
    named = [f"line {3 * i + 7}" for i in split.too_long[:100]]
    assert stream.artifacts["too_long"] == named
    assert f"{len(split.too_long)} longer than a row left out" in stream.summary
    # A text that is cut anywhere has room for all.
    cut = _stream(path, **{"batch.length": 64, "batch.form": "cut"})
    assert not len(cut.split.too_long)


def test_artifacts_are_json_and_tell_sizes_in_all_units(path):
    for stream in _forms(path):
        facts = json.loads(json.dumps(stream.artifacts))
        store = stream.store
        assert facts["vocabulary"] == store.vocabulary.to_json()
        assert facts["notation"] == "selfies"
        for name, part, epoch in (
            ("training_set", stream.split.train, stream.train_epoch(0)),
            ("validation_set", stream.split.valid, stream.evals["valid"]),
        ):
            symbols = int(store.lengths[part].sum())
            batches = [epoch[i] for i in range(len(epoch))]
            assert facts[name] == {
                "molecules": len(part),
                "tokens": symbols + 2 * len(part),
                "symbols": symbols,
                "heavy_atoms": int(store.heavy_atoms[part].sum()),
                "rows": sum(int(b.segment_BL.any(1).sum()) for b in batches),
            }
            used = [b.segment_BL[b.segment_BL.any(1)] for b in batches]
            real = sum(int((s > 0).sum()) for s in used)
            fill = facts["fill"]["train" if name == "training_set" else "valid"]
            assert fill == pytest.approx(real / sum(s.size for s in used), abs=1e-4)
        assert facts["split"]["duplicates"]["train_in_valid_neutral_only"] > 0
        assert facts["source"]["molecules"] == 600
        assert "\n" not in stream.summary
        assert f"{len(stream.split.train)} to train on" in stream.summary


def test_repeats_can_be_kept(path):
    once, kept = _stream(path), _stream(path, **{"data.deduplicate": False})
    found = kept.split.summary["duplicates"]
    repeats = found["repeats_in_train"]
    assert repeats > 0
    assert len(kept.split.train) == len(once.split.train) + repeats
    repeats += found["repeats_in_valid"]
    assert f"{repeats} repeats kept" in kept.summary
    assert f"{repeats} repeats removed" in once.summary


def test_training_sets_of_all_forms_are_nested(path):
    for unit, amounts in (
        ("molecules", (10, 200)),
        ("tokens", (999, 9000)),
        ("rows", (3, 60)),
    ):
        for small, large in zip(
            *(_forms(path, **{f"data.train_{unit}": a}) for a in amounts), strict=True
        ):
            size = len(small.split.train)
            assert small.split.train.tolist() == large.split.train[:size].tolist()
            _assert_equal(small.evals["valid"][0], large.evals["valid"][0])
    # Rows of the faithful form are exactly as many as asked for.
    cut = _stream(path, **{"batch.form": "cut", "data.train_rows": 60})
    assert cut.artifacts["training_set"]["rows"] == 60


def test_shapes_of_batches():
    lengths = pubchem_lengths(3000)

    def shapes(form="bucketed", rows=8, length=512, buckets=(), tokens=0):
        return row_shapes(form, rows, length, buckets, tokens, lengths)

    assert shapes("packed") == shapes("cut") == ((8, 512),)
    # Batches of all lengths have about as many tokens; rows are multiples of 8.
    assert shapes(buckets=(64, 96, 512)) == ((64, 64), (40, 96), (8, 512))
    assert shapes(buckets=(64, 512), tokens=2048) == ((32, 64), (8, 512))
    chosen = shapes(tokens=8192)
    assert chosen[0].length < 128
    assert all(abs(rows * length / 8192 - 1) < 0.2 for rows, length in chosen)
    wrong: Any
    for wrong, message in (
        ({"form": "padded"}, "config.batch.form='padded' is unknown"),
        ({"rows": 0}, "at least 1 row"),
        ({"length": 2}, "at least 3 tokens"),
        ({"buckets": (96, 64)}, "give rising lengths"),
    ):
        with pytest.raises(UserError, match=message):
            shapes(**wrong)


def test_too_little_text_for_a_row(path):
    with pytest.raises(UserError, match="do not fill one row of 128"):
        _stream(path, **{"batch.form": "cut", "data.train_molecules": 1})
    # Packed, one molecule is a row.
    assert len(_stream(path, **{"data.train_molecules": 1}).train_epoch(0)) == 1

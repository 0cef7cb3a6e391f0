import collections
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

from chemscale_jax.core.errors import UserError
from chemscale_jax.interop import plain_pickle, torch_tensors
from chemscale_jax.interop.torch_file import read_state_dict, read_torch
from tests.interop.torch_writer import (
    KINDS,
    Call,
    Name,
    Storage,
    pickled,
    tensor,
    write_legacy,
    write_zip,
)

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.pth"


def state_of(storage):
    return Call("collections.OrderedDict", state={"_metadata": {"": {"version": 1}}}), {
        "weight": tensor(storage, (3, 4), (4, 1)),
        "turned": tensor(storage, (4, 3), (1, 4)),
        "row": tensor(storage, (2,), (2,), 5),
    }


def checkpoint(storage):
    attributes, state = state_of(storage)
    return {
        "state_dict": state,
        "empty": attributes,
        "epoch": 3,
        "lr": [1e-3, None, True],
        "size": Call("torch.Size", (2, 3)),
        "dtype": Name("torch.float32"),
        "parameter": Call(
            "torch._utils._rebuild_parameter", state["row"], True, "no hooks"
        ),
    }


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_both_layouts(path, write):
    storage = Storage(WEIGHT, "7")
    write(path, checkpoint(storage), [storage])
    state = read_state_dict(path)
    assert list(state) == ["weight", "turned", "row"]
    assert np.array_equal(state["weight"], WEIGHT)
    assert np.array_equal(state["turned"], WEIGHT.T)
    assert np.array_equal(state["row"], [5, 7])
    content = read_torch(path)
    assert content["lr"] == [1e-3, None, True]
    assert (content["size"], content["dtype"]) == ((2, 3), "torch.float32")
    assert np.array_equal(content["parameter"], [5, 7])


@pytest.mark.parametrize("code", KINDS)
@pytest.mark.parametrize("order", ["little", "big"])
def test_types_and_byte_orders(path, code, order):
    data = np.array([3, 0, 1], np.dtype(code).newbyteorder(order))
    storage = Storage(data)
    value = {"x": tensor(storage, (3,), (1,)), "s": tensor(storage, (), (), 2)}
    state = read_state_dict(write_zip(path, value, [storage], byteorder=order))
    assert state["x"].dtype == np.dtype(code)
    assert state["x"].tolist() == [3, 0, 1]
    assert state["s"].shape == ()
    assert state["s"] == 1


def test_bfloat16_and_bool(path):
    halves = Storage(
        (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype(np.uint16),
        kind="torch.BFloat16Storage",
    )
    flags = Storage(np.array([2, 0], np.uint8), "1", "torch.BoolStorage")
    value = {"x": tensor(halves, (2,), (1,)), "b": tensor(flags, (2,), (1,))}
    state = read_state_dict(write_zip(path, value, [halves, flags]))
    assert state["x"].tolist() == [1.5, -2.0]
    assert state["b"].tolist() == [True, False]


def test_views_of_legacy_storages(path):
    storage = Storage(WEIGHT, view=(("view", 4, 8),))
    value = {"x": tensor(storage, (2,), (1,), 1)}
    assert read_state_dict(write_legacy(path, value, [storage]))["x"].tolist() == [5, 6]


ATTACKS = {
    "os.system": (Call("os.system", "touch OWNED"), "names 'os.system'"),
    "posix": (Call("posix.system", "touch OWNED"), "names 'posix.system'"),
    "eval": (Call("builtins.eval", "1"), "names 'builtins.eval'"),
    "getattr": (
        Call("builtins.getattr", Name("torch.Size"), "__init__"),
        "names 'builtins.getattr'",
    ),
    "torch.load": (Call("torch.load", "x"), "names 'torch.load'"),
    "dtype call": (Call("torch.float32", "x"), "calls 'torch.float32'"),
    "attributes": (
        Call("collections.OrderedDict", state={"__class__": 1}),
        "sets attributes of an object",
    ),
    "attributes of a class": (
        Call("torch.Size", (), state={"_metadata": 1}),
        "damaged pickle",
    ),
    "tuple keys": ({(1, 2): 3}, "tuple as a key"),
}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("name", ATTACKS)
def test_calls_are_refused_by_name(path, write, name, monkeypatch):
    value, message = ATTACKS[name]
    monkeypatch.chdir(path.parent)
    write(path, {"weight": value})
    with pytest.raises(UserError, match=message) as caught:
        read_torch(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir() == [path.name]


def test_the_attack_works_on_python(path, monkeypatch):
    """What the test above refuses is real: pickle runs it."""
    monkeypatch.chdir(path.parent)
    pickle.loads(pickled(Call("os.mkdir", "OWNED")))
    assert os.listdir() == ["OWNED"]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00lsi", "opcode|names"),
        (b"(S'ls'\nios\nsystem\n.", "opcode STRING"),
        (b"\x80\x02ctorch\nSize\n)\x81.", "opcode NEWOBJ"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "names 'os.system'"),
        (b"\x80\x04]]\x93.", "damaged pickle"),
        (b"\x80\x02h\x05.", "damaged pickle"),  # a memo that was never filled
        (b"\x80\x02N", "damaged pickle"),  # no end
        (b"\x80\x02.", "damaged pickle"),  # no value
        (b"\x80\x02X\xff\xff\xff\x7fab.", "damaged pickle"),  # 2 GB of text
        (b"\x80\x02" + b"\x8a\xff" + b"\x7f" * 255 + b"R.", "damaged pickle"),
        (b"\x80\x02" + b"]" * 3000 + b"a" * 2999 + b".", "too deeply"),
        # Each list holds the last one twice: 2^28 values if written out.
        (b"\x80\x02](]q\x00" + b"](h\x00h\x00eq\x00" * 28 + b"e.", "too deeply"),
        (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "too deeply"),  # holds itself
        (b"\x80\x02]q\x00" + b"](h\x00h\x00eq\x00" * 60 + b"Q.", "identifier"),
    ],
)
def test_hostile_programs(path, program, message):
    with pytest.raises(UserError, match=message):
        read_torch(write_zip(path, None, raw=program))


def test_programs_end(path, monkeypatch):
    monkeypatch.setattr(plain_pickle, "MOST_OPCODES", 1000)
    with pytest.raises(UserError, match="more than 1,000 opcodes"):
        read_torch(write_zip(path, None, raw=b"\x80\x02" + b"]" + b"Na" * 600 + b"."))


S = Storage(WEIGHT)


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(S, (4, 4), (4, 1)), "needs more than the 12 elements"),
        (tensor(S, (3, 4), (4, 1), 1), "needs more than the 12 elements"),
        (tensor(S, (3, 4), (2**40, 1)), "needs more than the 12 elements"),
        (tensor(S, (10**15,), (0,)), "needs more than the 12 elements"),
        (tensor(S, (10**15, 0), (1, 1)), r"size \(1000000000000000, 0\)"),
        (tensor(S, (3, 4), (-4, 1), 8), "stride"),
        (tensor(S, (3, 4), (4, 1), -1), "offset -1"),
        (tensor(S, (3, 4), (4,)), "stride"),
        (tensor(S, (True,), (1,)), "size"),
        (tensor(S, (1,) * 40, (1,) * 40), "stride"),
        (tensor("text", (1,), (1,)), "without a storage"),
        (Storage(WEIGHT), "storage outside of a tensor"),
        ([tensor(Storage(WEIGHT, numel=2**60), (1,), (1,))], "more than fit in the"),
        ([tensor(Storage(WEIGHT, numel=-1), (1,), (1,))], "more than fit in the"),
        ([tensor(Storage(WEIGHT, "../../x"), (1,), (1,))], r"'../../x'"),
        ([tensor(Storage(WEIGHT, kind="torch.QInt8Storage"), (), ())], "QInt8Storage"),
    ],
)
def test_tensors_stay_in_their_storage(path, write, value, message):
    write(path, {"x": value}, [S])
    with pytest.raises(UserError, match=message):
        read_torch(path)


def test_one_key_names_one_storage(path):
    longer = Storage(WEIGHT, numel=24)
    filler = Storage(np.zeros(64, np.float32), "1")
    value = [tensor(S, (1,), (1,)), tensor(longer, (24,), (1,))]
    write_zip(path, value, [S, filler])
    with pytest.raises(UserError, match="as 12 x torch.FloatStorage and as 24 x"):
        read_torch(path)


def test_tensors_that_share_too_much(path):
    value = [tensor(S, (12,), (1,)) for _ in range(3)]
    write_zip(path, value, [S])
    read_torch(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_tensors, "_MOST_SHARING", 0.1)
        with pytest.raises(UserError, match="times larger than itself"):
            read_torch(path)


def good(path):
    return write_zip(path, {"x": tensor(S, (3, 4), (4, 1))}, [S])


def test_truncated_files(path):
    content = good(path).read_bytes()
    for length in range(0, len(content), 61):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged zip|not a file of torch"):
            read_torch(path)
    write_legacy(path, {"x": tensor(S, (3, 4), (4, 1))}, [S])
    content = path.read_bytes()
    for length in (20, 60, 200, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"damaged pickle|bytes are left"):
            read_torch(path)


def test_flipped_bytes_are_noticed_or_harmless(path):
    content = bytearray(good(path).read_bytes())
    for at in range(0, len(content), 3):
        torn = content.copy()
        torn[at] ^= 0xFF
        path.write_bytes(torn)
        try:
            assert np.array_equal(read_torch(path)["x"], WEIGHT)
        except UserError:
            pass


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../../etc/passwd", "leads outside"),
        ("/etc/passwd", "leads outside"),
        ("C:\\x", "leads outside"),
        ("archive/data/0", "twice"),
        ("other/data.pkl", "2 data.pkl"),
    ],
)
def test_names_of_entries(path, name, message):
    good(path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore", UserWarning)
        archive.writestr(name, b"x")
    with pytest.raises(UserError, match=message):
        read_torch(path)


def test_compressed_and_overlapping_entries(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled({}))
        archive.writestr("archive/data/0", b"\0" * 10_000_000)
    with pytest.raises(UserError, match=r"compressed entry .*data.pkl"):
        read_torch(path)
    content = good(path).read_bytes()
    # The directory now says that the last entry is a gigabyte long.
    at = content.rindex(b"PK\x01\x02") + 20
    path.write_bytes(
        content[:at] + struct.pack("<II", 1 << 30, 1 << 30) + content[at + 8 :]
    )
    with pytest.raises(UserError, match="larger than the file itself"):
        read_torch(path)


def test_storages_that_do_not_fit_their_pickle(path):
    short = Storage(WEIGHT[:1], numel=12)
    write_zip(path, {"x": tensor(short, (3, 4), (4, 1))}, [short])
    with pytest.raises(UserError, match="of 16 bytes, its pickle says 48"):
        read_torch(path)
    write_zip(path, {"x": tensor(S, (3, 4), (4, 1))})
    with pytest.raises(UserError, match="lacks the entry archive/data/0"):
        read_torch(path)
    write_legacy(path, {"x": tensor(S, (3, 4), (4, 1))})
    with pytest.raises(UserError, match="lists other storages"):
        read_torch(path)


def test_other_files(path):
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="not a file of torch.save"):
        read_torch(path)
    path.write_bytes(pickle.dumps(collections.OrderedDict(a=1), 2))
    with pytest.raises(UserError, match="names 'collections.OrderedDict'"):
        read_torch(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_torch(path.parent / "absent.pth")
    write_legacy(path, {}, system={"little_endian": False})
    with pytest.raises(UserError, match="big-endian"):
        read_torch(path)
    write_zip(path, {}, byteorder="middle")
    with pytest.raises(UserError, match="byte order"):
        read_torch(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "holds a list"),
        ({}, "it is empty"),
        ({"a": 1, "b": "x"}, "'a', 'b' are no tensor"),
    ],
)
def test_content_that_is_no_state_dict(path, value, message):
    with pytest.raises(UserError, match=message):
        read_state_dict(write_zip(path, value))


@pytest.mark.peers
def test_files_of_torch(path):
    """Needs the environment named by CHEMSCALE_PEERS, or torch in this one."""
    python = os.environ.get("CHEMSCALE_PEERS", sys.executable)
    code = """
import sys, numpy, torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
state = model.state_dict()
state["bf"] = torch.tensor([1.5, -2]).bfloat16()
state["slice"] = torch.arange(10).reshape(2, 5).T[1:4:2]
state["tied"] = state["0.weight"]
path = sys.argv[1]
torch.save(state, path + ".zip")
torch.save(state, path + ".old", _use_new_zipfile_serialization=False)
torch.save({"state_dict": state, "epoch": 1}, path + ".four", pickle_protocol=4)
numpy.savez(path, **{name: x.float().numpy() for name, x in state.items()})
"""
    subprocess.run([python, "-c", code, str(path)], check=True)
    with np.load(f"{path}.npz") as expected:
        for suffix in ("zip", "old", "four"):
            state = read_state_dict(f"{path}.{suffix}")
            assert sorted(state) == sorted(expected.files)
            for name, array in state.items():
                assert np.array_equal(array, expected[name]), name
            assert state["slice"].dtype == np.int64

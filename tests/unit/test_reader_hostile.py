"""Hostile, damaged and foreign files are refused with a reason; nothing in them runs."""

from __future__ import annotations

import io
import pickle
import random
import struct
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cloverleaf
import official_files as official
from cloverleaf.errors import CheckpointError
from cloverleaf.weights import save
from cloverleaf.weights.reader import read_official

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(4, dtype=torch.float16)}


class Storage:
    """Becomes a persistent id of torch."""

    def __init__(self, numel: Any = 4, key: Any = "0", kind: Any = torch.FloatStorage) -> None:
        self.claim = ("storage", kind, key, "cpu", numel)


class Call:
    """Becomes a call when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.parts = function, args

    def __reduce__(self) -> Any:
        return self.parts


def window(size: Any, stride: Any, offset: Any = 0, storage: Storage | None = None) -> Call:
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, storage or Storage(), offset, size, stride, False, OrderedDict())


def pickled(value: object) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return value.claim if isinstance(value, Storage) else None

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def archive(path: Path, pickle_bytes: bytes, storages: dict[str, bytes] | None = None, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle_bytes)
        for key, content in (storages or {}).items():
            file.writestr(f"archive/data/{key}", content)
        for name, content in more.items():
            file.writestr(f"archive/{name}", content)
    return path


def refused(path: Path, says: str) -> None:
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match=says) as caught:
        read_official(path)
    assert caught.value.why and caught.value.fix and len(str(caught.value)) < 1000 and str(caught.value).isprintable()
    assert time.perf_counter() - started < 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hostile.pt"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["top", "state", "key"])
def test_nothing_runs(protocol: int, place: str, path: Path, tmp_path: Path) -> None:
    import os

    marker = tmp_path / "it-ran"
    evil = Call(os.system, f"touch {marker}")
    value = {"top": evil, "state": {"model": {"a": 1}, "x": [evil]}, "key": {"model": 1, "y": ({"z": evil},)}}[place]
    content = pickle.dumps(value, protocol=protocol)
    refused(archive(path, content), r"posix\.system|nt\.system")
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
                     + pickle.dumps({"little_endian": True}, 2) + content)  # fmt: skip
    refused(path, r"posix\.system|nt\.system")
    official.write(path, {"model": STATE, "extra": evil})
    refused(path, r"posix\.system|nt\.system")
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists(), "the file would have run something"


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval", "builtins exec", "builtins getattr", "builtins __import__", "__builtin__ eval", "posix system",
        "subprocess Popen", "functools partial", "operator attrgetter", "importlib import_module", "runpy run_path",
        "torch load", "torch.hub load", "torch.storage _load_from_bytes", "torch.utils.cpp_extension load",
        "numpy load", "numpy.testing._private.utils runstring", "types FunctionType", "types CodeType", "ctypes CDLL",
        "pty spawn", "copyreg __newobj__", "code InteractiveInterpreter", "webbrowser open", "_io open",
        "commands getoutput", "torch.jit._script unpickle", "socket socket",
        "shutil rmtree",
    ],
)  # fmt: skip
def test_code_is_refused_by_name_even_where_it_is_not_called(name: str, path: Path) -> None:
    named = "c" + name.replace(" ", "\n") + "\n"
    dotted = name.replace(" ", r"\.")
    refused(archive(path, b"\x80\x02" + named.encode() + b"."), dotted)
    module, _, attribute = name.partition(" ")
    by_stack = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, attribute))
    refused(archive(path, b"\x80\x04" + by_stack + b"\x93."), dotted)


@pytest.mark.parametrize("name", ["pip main", "models.common attempt_download", "torch.nn.init ones_", "__main__ f",
                                  "models.yolo Model", "setuptools setup", "torch FloatStorage"])  # fmt: skip
def test_unknown_calls_are_refused_by_name(name: str, path: Path) -> None:
    named = b"c" + name.replace(" ", "\n").encode() + b"\n"
    refused(archive(path, b"\x80\x02" + named + b")R."), f"calls {name.replace(' ', '.')}")


G = b"cmodels.yolo\nModel\n"
OPCODES = {
    "INST": (b"(S'ls'\nios\nsystem\n.", r"os\.system"),
    "INST of a class": (b"(imodels.yolo\nModel\n.", r"models\.yolo\.Model.*INST"),
    "OBJ": (b"(" + G + b"o.", "OBJ"),
    "EXT1": (b"\x82\x01.", "EXT1"),
    "EXT4": (b"\x84\x01\x00\x00\x00.", "EXT4"),
    "PERSID": (b"P0\n.", "PERSID"),
    "BUILD on a list": (b"]}b.", "sets the state of a list"),
    "BUILD on a dict": (b"}}b.", "sets the state of a dict"),
    "BUILD on a number": (b"K\x01}b.", "sets the state of a int"),
    "BUILD on a class": (G + b"}b.", "sets the state of a Global"),
    "REDUCE on a record": (G + b")\x81)R.", "calls an object of type Record"),
    "REDUCE on text": (b"X\x01\x00\x00\x00a)R.", "calls an object of type str"),
    "REDUCE without a tuple": (b"ccollections\nOrderedDict\n]R.", "no tuple"),
    "NEWOBJ of a function": (b"c_codecs\nencode\n)\x81.", r"instance of _codecs\.encode"),
    "NEWOBJ of text": (b"X\x01\x00\x00\x00a)\x81.", "instance of str"),
    "NEWOBJ without a tuple": (G + b"]\x81.", "no tuple"),
    "NEWOBJ_EX without names": (G + b")]\x92.", "no dict"),
    "STACK_GLOBAL of numbers": (b"K\x01K\x02\x93.", "not text"),
    "STACK_GLOBAL of bytes": (b"C\x02osC\x06system\x93.", "not text"),
    "empty stack": (b"0.", "has not made"),
    "nothing at the end": (b".", "exactly one value"),
    "two values at the end": (b"K\x01K\x02.", "exactly one value"),
    "open mark at the end": (b"(K\x01.", "exactly one value"),
    "group without a beginning": (b"]e.", "has not begun"),
    "absent memo": (b"h\x05.", "value 5"),
    "memo of nothing": (b"q\x05.", "has not made"),
    "far memo": (b"Np99999999999999999999\n.", "beyond 32 bits"),
    "key without value": (b"}(K\x01u.", "no value"),
    "key of a list": (b"}]K\x01s.", "list is used as a key"),
    "key of a tuple": (b"})K\x01s.", "tuple is used as a key"),
    "huge key": (b"}\x8a\x09" + b"\xff" * 8 + b"\x01K\x01s.", "beyond 64 bits"),
    "list in a set": (b"\x8f(]\x90.", "list is used as a key"),
    "append to a number": (b"K\x01K\x02a.", "puts values into a int"),
    "items of a list": (b"]K\x01K\x02s.", "puts values into a list"),
    "LONG4 of gigabytes": (b"\x8b\xff\xff\xff\x7f.", "damaged"),
    "LONG4 of a negative length": (b"\x8b\xff\xff\xff\xff.", "damaged"),
    "large LONG1": (b"\x8a\xff" + b"\x7f" * 255 + b".", "has 2039 bits"),
    "long text of digits": (b"L" + b"9" * 5000 + b"L\n.", "damaged"),
    "text of 2^60 bytes": (b"\x8d" + (2**60).to_bytes(8, "little") + b"x.", "damaged"),
    "bytes beyond any size": (b"\x8e" + b"\xff" * 8 + b"x.", "damaged"),
    "no STOP": (b"K\x01", "damaged"),
    "unknown opcode": (b"\xff.", "damaged"),
    "broken text": (b"X\x02\x00\x00\x00\xff\xfe.", "damaged"),
    "outside buffer": (b"\x97.", "NEXT_BUFFER"),
    "defaultdict of a function": (b"ccollections\ndefaultdict\ncos\nsystem\n\x85R.", r"os\.system"),
    "constructor of a call": (b"ccopy_reg\n_reconstructor\n(cpip\nmain\nc__builtin__\nint\nNtR.", "of copy_reg"),
    "persistent id of text": (b"X\x01\x00\x00\x00aQ.", "no storage"),
}  # fmt: skip


@pytest.mark.parametrize("case", OPCODES)
def test_tricks_with_opcodes(case: str, path: Path) -> None:
    content, says = OPCODES[case]
    refused(archive(path, b"\x80\x04" + content), says)


DEEP = 100_000
NESTS = {
    "lists": b"]" * DEEP + b"a" * (DEEP - 1),
    "tuples": b")" + b"\x85" * DEEP,
    "dicts": b"}K\x00" * DEEP + b"N" + b"s" * DEEP,
    "ordered dicts": b"ccollections\nOrderedDict\nq\x00)R" + b"K\x00h\x00)R" * DEEP + b"s" * DEEP,
    "records": G + b"q\x00)\x81" + b"K\x00h\x00)\x81" * DEEP + b"s" * DEEP,
    "marks": b"(" * DEEP + b"t" * DEEP,
    "a key": b"})" + b"\x85" * DEEP + b"Ns",
    "a name": b")" + b"\x85" * DEEP + b"K\x01\x93",
    "a storage": b"(X\x07\x00\x00\x00storage)" + b"\x85" * DEEP + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ",
}


@pytest.mark.parametrize("case", NESTS)
def test_deep_nesting(case: str, path: Path) -> None:
    refused(archive(path, b"\x80\x04" + NESTS[case] + b"."), ".")


def test_too_many_operations(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloverleaf.weights.torch_file.machine.MAX_OPERATIONS", 10_000)
    refused(archive(path, b"\x80\x04" + b"N" * 20_000 + b"."), "more than 10000 operations")
    monkeypatch.setattr("cloverleaf.weights.torch_file.container.MAX_PICKLE", 10_000)
    refused(archive(path, b"\x80\x04" + b"N" * 20_000 + b"."), "has 20003 bytes")


def test_modules_in_circles(path: Path) -> None:
    circle = nn.Sequential(nn.Linear(2, 2))
    circle[0].add_module("again", circle)
    refused(official.write(path, {"model": circle}), r"0\.again contains itself")
    refused(official.write(path, {"model": circle}, legacy=True), "contains itself")
    chain: nn.Module = nn.Linear(1, 1)
    for _ in range(80):
        chain = nn.Sequential(chain)
    refused(official.write(path, {"model": chain}), "nested too deeply")
    tree: nn.Module = nn.Identity()
    for _ in range(40):  # forty modules that unfold to 2**40
        tree = nn.Sequential(tree, tree)
    refused(official.write(path, {"model": tree}), "too many")
    circular: dict[str, Any] = {"x": torch.zeros(1)}
    circular["itself"] = circular
    refused(official.write(path, circular), "itself is no tensor")


@pytest.mark.parametrize(
    ("attribute", "value", "says"),
    [
        ("_modules", OrderedDict({"a.b": nn.Identity()}), "the name a.b"),
        ("_modules", OrderedDict({3: nn.Identity()}), "the name 3"),
        ("_modules", OrderedDict({"a": 3}), "a stands where a module should"),
        ("_parameters", OrderedDict({"w": "text"}), "w stands where a tensor should"),
        ("_buffers", [1], "_buffers of module .top. is no dict"),
    ],
)
def test_modules_of_a_wrong_kind(attribute: str, value: object, says: str, path: Path) -> None:
    module = nn.Identity()
    module.__dict__[attribute] = value
    refused(official.write(path, {"model": module}), says)


TENSORS = {
    "absurd size": (window((2**40,), (1,)), "reaches element 1099511627775 of a storage of 4"),
    "absurd size by repetition": (window((2**40,), (0,)), "size .1099511627776. and"),
    "overflow of 64 bits": (window((2**32, 2**32), (2**32, 2**32)), "has size"),
    "empty, but huge": (window((0, 2**62), (1, 1)), "beyond 31 bits"),
    "beyond the end": (window((2, 2), (2, 1), 1), "reaches element 4"),
    "offset beyond the end": (window((0,), (1,), 5), "has size"),
    "negative offset": (window((1,), (1,), -1), "negative"),
    "negative stride": (window((4,), (-1,), 3), "negative"),
    "negative size": (window((-1,), (1,)), "negative"),
    "sizes without strides": (window((2, 2), (1,)), "2 sides and 1 strides"),
    "many dimensions": (window((1,) * 17, (1,) * 17), "wrong number or type"),
    "sizes of text": (window(("4",), (1,)), "wrong number or type"),
    "storage shorter than it claims": (window((4,), (1,), 0, Storage(5)), "has 16 bytes, but claims 5"),
    "storage of terabytes": (window((4,), (1,), 0, Storage(2**50)), "has 16 bytes, but claims"),
    "absent storage": (window((4,), (1,), 0, Storage(4, "7")), "storage 7 of x is not in it"),
    "storage with a path": (window((4,), (1,), 0, Storage(4, "../data.pkl")), "storage of name ../data.pkl"),
    "storage by number": (window((4,), (1,), 0, Storage(4, 0)), "storage of name 0"),
    "storage of text elements": (window((4,), (1,), 0, Storage("4")), "4 elements"),
    "storage of unknown kind": (window((4,), (1,), 0, Storage(4, "0", nn.Linear)), "kind torch.nn.*Linear"),
    "no storage": (Call(torch._utils._rebuild_tensor_v2, 1, 0, (1,), (1,)), "wrong number or type"),
    "parameter of a number": (Call(torch._utils._rebuild_parameter, 1, False, {}), "wrong number"),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_their_storage(case: str, path: Path) -> None:
    value, says = TENSORS[case]
    refused(archive(path, pickled({"x": value}), {"0": bytes(16)}), says)


def test_a_storage_described_twice(path: Path) -> None:
    twice = {"x": window((4,), (1,)), "y": window((4,), (1,), 0, Storage(4, "0", torch.IntStorage))}
    refused(archive(path, pickled(twice), {"0": bytes(16)}), "describe storage 0 differently")


def test_bools_are_zero_or_one(path: Path) -> None:
    flags = window((3,), (1,), 0, Storage(3, "0", torch.BoolStorage))
    found = read_official(archive(path, pickled({"x": flags}), {"0": b"\x00\x07\xff"}))
    assert found["x"].view(torch.uint8).tolist() == [0, 1, 1]


def test_archives_that_are_not_as_torch_writes_them(path: Path, tmp_path: Path) -> None:
    good = pickled(STATE["a.weight"].shape)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", good)
        file.writestr("archive/data/0", bytes(50_000_000))
    assert path.stat().st_size < 100_000
    refused(path, "compressed")
    for name in ("../escape", "/etc/passwd", "a\\b", "C:/windows", "archive/../../x"):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", good)
            file.writestr(name, b"x")
        refused(path, "has the path")
    with zipfile.ZipFile(path, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("archive/data.pkl", good)
        file.writestr("archive/data.pkl", good)
    refused(path, "two entries")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    refused(path, "without the data.pkl")
    refused(archive(path, good, **{"constants.pkl": b"x"}), "TorchScript")
    refused(archive(path, good, byteorder=b"big"), "big-endian")
    refused(archive(path, good, byteorder=b"little" * 10), "byteorder of its archive has 60 bytes")
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name], "something was written"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        (20, struct.pack("<II", 2**31, 2**31), "claim 2147483"),  # both sizes in the table of contents
        (24, struct.pack("<I", 2**31), "compressed"),  # only the real size
        (8, struct.pack("<H", 1), "encrypted"),
        (10, struct.pack("<H", 99), "compressed"),
        (16, struct.pack("<I", 1), "damaged"),  # check sum
        (42, struct.pack("<I", 2**31), "damaged"),  # place in the file
    ],
)
def test_lies_in_the_table_of_contents(field: int, value: bytes, says: str, path: Path) -> None:
    content = bytearray(archive(path, pickled({"x": window((4,), (1,))}), {"0": bytes(16)}).read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + field : entry + field + len(value)] = value
    path.write_bytes(content)
    refused(path, says)


def test_overlapping_entries(path: Path) -> None:
    """A thousand entries whose bytes are all the same ones."""
    archive(path, pickled({"x": 1}), {str(i): bytes(1000) for i in range(100)})
    content = bytearray(path.read_bytes())
    positions = [i for i in range(len(content) - 4) if content[i : i + 4] == b"PK\x01\x02"]
    for position in positions:
        content[position + 20 : position + 28] = struct.pack("<II", 100_000, 100_000)
    path.write_bytes(content)
    refused(path, "claim 10100000 bytes")


def test_a_table_of_contents_of_gigabytes(path: Path) -> None:
    content = bytearray(archive(path, pickled({"x": 1})).read_bytes())
    content[-10:-6] = struct.pack("<I", 2**31)
    path.write_bytes(content)
    refused(path, "table of contents|damaged")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("keep", [1, 2, 5, 30, 0.3, 0.6, 0.9, 0.99, -1])
def test_truncated(legacy: bool, keep: float, path: Path) -> None:
    content = official.write(path, {"model": STATE}, legacy=legacy).read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    refused(path, "truncated|damaged|ends within|begins with|without the data.pkl")


def legacy_file(
    path: Path, *, little: bool = True, keys: object = ("0",), numel: int = 4, rest: bytes = bytes(16)
) -> Path:
    class Old(Storage):
        def __init__(self) -> None:
            self.claim = ("storage", torch.FloatStorage, "0", "cpu", 4, None)

    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": little}, {"x": window((4,), (1,), 0, Old())}, list(keys)]  # type: ignore[call-overload]
    path.write_bytes(b"".join(map(pickled, parts)) + struct.pack("<q", numel) + rest)
    return path


def test_legacy_files(path: Path) -> None:
    assert read_official(legacy_file(path))["x"].tolist() == [0, 0, 0, 0]
    refused(legacy_file(path, little=False), "big-endian")
    refused(legacy_file(path, keys=("0", "0")), "there twice")
    refused(legacy_file(path, keys=("1",)), "list of storages has 1")
    refused(legacy_file(path, keys=()), "bytes follow")
    refused(legacy_file(path, numel=2**60), "has not the 4 elements")
    refused(legacy_file(path, rest=bytes(15)), "ends within storage 0")
    refused(legacy_file(path, rest=bytes(17)), "1 bytes follow")


def test_flipped_bytes_of_a_storage(path: Path) -> None:
    content = bytearray(official.write(path, STATE).read_bytes())
    place = content.index(STATE["a.weight"].numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    refused(path, "damaged")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"\n  <!DOCTYPE html><html><head><title>Quota exceeded</title>", "web page"),
        (b"<HTML>not found</HTML>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS pointer"),
        (b'{"message": "Not Found"}', 'begins with \'{"message": "Not Found"}\''),
        (b"\x1f\x8b\x08\x00rest", "tar or gzip"),
        (bytes(257) + b"ustar" + bytes(300), "tar or gzip"),
        (b"\x89HDF\r\n\x1a\n", "no file of PyTorch"),
        (b"\x1b[31mred\x07" * 50, "begins with"),
        (pickle.dumps({"a": 1}), "not one of torch.save"),
        (pickle.dumps({"a": 1}, protocol=5), "not one of torch.save"),
        (b"PK\x03\x04" + bytes(100), "damaged"),
        (b"\x10" + bytes(7) + b"{" + bytes(30), "damaged safetensors"),
    ],
)
def test_other_files(content: bytes, says: str, path: Path) -> None:
    path.write_bytes(content)
    refused(path, says)


def test_absent_files_and_our_own(path: Path, tmp_path: Path) -> None:
    for absent, says in ((path, "no such file"), (tmp_path, "it is a folder"), (Path(), "it is a folder")):
        with pytest.raises(CheckpointError, match=says):
            read_official(absent)
    narrow = {"width": 0.125}
    save(cloverleaf.create_model("yolov7-tiny", backbone=narrow, neck=narrow, head=narrow), path)
    refused(path, "Cloverleaf weights file already")


def test_random_changes_of_archives_never_surprise(path: Path) -> None:
    """Nor do they if they hit the archive around the pickle, its table of contents above all."""
    original = official.write(path, STATE).read_bytes()
    draw = random.Random(0)
    refusals = 0
    for _ in range(400):
        content = bytearray(original)
        place = draw.randrange(max(0, len(content) - 1000), len(content) - 4)
        content[place : place + 4] = struct.pack("<I", draw.choice((0, 1, 2**31, 2**32 - 1, draw.randrange(2**32))))
        path.write_bytes(content)
        try:
            read_official(path)
        except CheckpointError:
            refusals += 1
    assert 100 < refusals < 400


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_random_changes_never_surprise(legacy: bool, path: Path) -> None:
    """Every damaged pickle is either read or refused, whatever the damage."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2))
    model.names = ["a", "b"]
    official.write(path, {"model": model, "ema": None, "epoch": 3}, legacy=legacy)
    if legacy:
        original, storages = path.read_bytes(), {}
    else:
        with zipfile.ZipFile(path) as file:
            entries = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
        original = entries.pop("data.pkl")
        storages = {name.removeprefix("data/"): c for name, c in entries.items() if name.startswith("data/")}
    draw = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(600):
        content = bytearray(original)
        for _ in range(draw.choice((1, 1, 2, 5))):
            place = draw.randrange(len(content))
            content[place] = draw.choice((draw.randrange(256), *b"(.0]})RcbQ\x81\x93tus"))
        if legacy:
            path.write_bytes(content)
        else:
            archive(path, bytes(content), storages)
        try:
            read_official(path)
            outcomes["read"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20, outcomes


def test_reading_imports_nothing(path: Path) -> None:
    official.write(path, {"model": official.official_model(official.random_state(
        (Path(__file__).parents[1] / "golden" / "yolov7" / "keys" / "yolov7-tiny.txt").read_text()))})  # fmt: skip
    before = set(sys.modules)
    assert len(read_official(path)) == 344
    assert not {name for name in set(sys.modules) - before if name.startswith(("models", "utils"))}

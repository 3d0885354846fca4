"""Which names a file may hold, and what stands in for a call.

Nothing is ever imported, looked up or called, so no name can do harm here. Two rules say what is refused all the same:

1. A name of Python's standard library, torch or numpy must be listed. What is not listed is code, and a checkpoint has
   no business with it. Classes of everybody else (``models.yolo.Model``) are inert.
2. A call (opcode REDUCE) must be one of `CALLS`. An instance (opcode NEWOBJ), which runs no code of the class in real
   unpickling either, may be of any class that rule 1 lets pass.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping

from cloverleaf.weights.torch_file.values import (
    HOSTILE,
    UNTRUSTED,
    UNUSUAL,
    Global,
    Record,
    StorageRef,
    TensorRef,
    Unreadable,
    shown,
)

Arguments = tuple[object, ...]

# Names of storage classes -> type of element, a name of torch.
STORAGES: Mapping[str, str] = {
    "HalfStorage": "float16", "BFloat16Storage": "bfloat16", "FloatStorage": "float32", "DoubleStorage": "float64",
    "ByteStorage": "uint8", "CharStorage": "int8", "ShortStorage": "int16", "IntStorage": "int32",
    "LongStorage": "int64", "BoolStorage": "bool",
}  # fmt: skip

_PYTHON_2 = {"__builtin__", "copy_reg", "cPickle", "commands", "popen2", "imp", "distutils", "os2", "exceptions"}
_GUARDED = frozenset(sys.stdlib_module_names) | _PYTHON_2 | {"torch", "numpy"}
_BUILTINS = {"set", "frozenset", "list", "dict", "tuple", "int", "float", "bool", "str", "bytes", "object", "slice",
             "complex", "bytearray", "range", "unicode", "long"}  # fmt: skip
_PATHS = {"Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"}
_DTYPES = {"half", "float", "double", "long", "int", "short", "bool", "bfloat16", "float16", "float32", "float64",
           "uint8", "int8", "int16", "int32", "int64", "complex64", "complex128"}  # fmt: skip
_CLASSES: Mapping[str, set[str]] = {
    "builtins": _BUILTINS, "__builtin__": _BUILTINS, "types": {"SimpleNamespace"}, "argparse": {"Namespace"},
    "collections": {"OrderedDict", "defaultdict"}, "pathlib": _PATHS, "pathlib._local": _PATHS,
    "datetime": {"datetime", "date", "time", "timedelta", "timezone"},
    "torch": {*STORAGES, *_DTYPES, "Size", "device", "strided", "contiguous_format", "channels_last"},
    "torch.cuda": {*STORAGES}, "torch.torch_version": {"TorchVersion"}, "torch._tensor": {"Tensor"},
    "numpy": {"dtype", "ndarray", "float64", "float32", "float16", "int64", "int32", "bool_"},
}  # fmt: skip
# Functions that published files hold by mistake (RevCol: the key ``input``); as names only, calling them is refused.
_UNCALLED = {("builtins", "input"), ("__builtin__", "raw_input"), ("__builtin__", "input")}
_INERT_FAMILIES = ("torch.nn.", "torch.optim.")


def resolve(module: object, name: object) -> Global:
    """The inert stand-in of a global; raises `Unreadable` with its name where rule 1 refuses it."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise Unreadable("a name in it is not text", HOSTILE)
    found = Global(module, name)
    listed = (
        name in _CLASSES.get(module, ())
        or (module, name) in CALLS
        or (module, name) in _UNCALLED
        or module.startswith(_INERT_FAMILIES)
    )
    if not listed and module.partition(".")[0] in _GUARDED:
        raise Unreadable(
            f"it names {shown(found.path)}, but checkpoints need only tensors, containers and classes of models; "
            "nothing of it was run",
            HOSTILE,
        )
    return found


def call(function: object, args: object) -> object:
    """What a call stands for, without calling; raises `Unreadable` with the name where rule 2 refuses it."""
    handler = CALLS.get((function.module, function.name)) if isinstance(function, Global) else None
    if handler is None:
        name = function.path if isinstance(function, Global) else f"an object of type {type(function).__name__}"
        raise Unreadable(f"it calls {shown(name)}, which is not known to be harmless; nothing of it was run", UNTRUSTED)
    if not isinstance(args, tuple):
        raise Unreadable("the arguments of a call in it are no tuple", HOSTILE)
    assert isinstance(function, Global)
    return handler(function, args)


def instance(cls: object, args: object) -> Record:
    """An inert object of a class."""
    if not isinstance(cls, Global) or (cls.module, cls.name) in CALLS.keys() | _UNCALLED:
        name = cls.path if isinstance(cls, Global) else type(cls).__name__
        raise Unreadable(f"it makes an instance of {shown(name)}, which is no class of a model", HOSTILE)
    if not isinstance(args, tuple):
        raise Unreadable("the arguments of an instance in it are no tuple", HOSTILE)
    return Record(cls, args)


def key(value: object) -> str | bytes | float | Global | Record | TensorRef | None:
    """``value`` if it may be a key of a dict or a member of a set: something with a cheap, fixed hash."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Unreadable("an integer key in it is beyond 64 bits", HOSTILE)
    if value is None or isinstance(value, str | bytes | int | float | Global | Record | TensorRef):
        return value
    raise Unreadable(f"a {type(value).__name__} is used as a key in it", UNUSUAL)


def _bad(function: Global) -> Unreadable:
    return Unreadable(f"its arguments of {function.path} have the wrong number or type", HOSTILE)


def _ordered_dict(function: Global, args: Arguments) -> OrderedDict[object, object]:
    if not args or (function.name == "defaultdict" and len(args) == 1 and isinstance(args[0], Global)):
        return OrderedDict()
    if len(args) != 1 or not isinstance(args[0], list):
        raise _bad(function)
    pairs = [pair for pair in args[0] if isinstance(pair, list | tuple) and len(pair) == 2]
    if len(pairs) != len(args[0]):
        raise _bad(function)
    return OrderedDict((key(first), second) for first, second in pairs)


def _set(function: Global, args: Arguments) -> set[object]:
    members = args[0] if len(args) == 1 else ()
    if len(args) > 1 or not isinstance(members, list | tuple):
        raise _bad(function)
    return {key(member) for member in members}


def _encode(function: Global, args: Arguments) -> bytes:
    """Bytes in protocol 2: the text of Latin-1 characters."""
    if len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":
        raise _bad(function)
    try:
        return args[0].encode("latin-1")
    except UnicodeEncodeError as error:
        raise _bad(function) from error


def _size(function: Global, args: Arguments) -> tuple[int, ...]:
    return _integers(function, args[0] if len(args) == 1 else None)


def _reconstructed(function: Global, args: Arguments) -> Record:
    """``copyreg._reconstructor(cls, object, None)``: an instance in protocols 0 and 1."""
    if len(args) != 3 or not isinstance(args[1], Global) or args[1].name != "object" or args[2] is not None:
        raise _bad(function)
    return instance(args[0], ())


def _record(function: Global, args: Arguments) -> Record:
    return Record(function, args)


def _tensor(function: Global, args: Arguments) -> TensorRef:
    """(storage, offset, size, stride[, requires_grad, hooks[, metadata]])"""
    if not 4 <= len(args) <= 7 or not isinstance(args[0], StorageRef) or type(args[1]) is not int:
        raise _bad(function)
    return TensorRef(args[0], args[1], _integers(function, args[2]), _integers(function, args[3]))


def _parameter(function: Global, args: Arguments) -> TensorRef:
    """(tensor, requires_grad, hooks[, state])"""
    if not 3 <= len(args) <= 4 or not isinstance(args[0], TensorRef):
        raise _bad(function)
    return args[0]


def _subclass(function: Global, args: Arguments) -> TensorRef:
    """(rebuild function, class, its arguments, attributes): a tensor that carries Python attributes."""
    if len(args) != 4:
        raise _bad(function)
    inner = call(args[0], args[2])
    if not isinstance(inner, TensorRef):
        raise _bad(function)
    return inner


def _integers(function: Global, value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) > 16 or any(type(item) is not int for item in value):
        raise _bad(function)
    return tuple(item for item in value if isinstance(item, int))


# (module, name) -> what stands in for calling it. The only calls there are.
CALLS: Mapping[tuple[str, str], Callable[[Global, Arguments], object]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "defaultdict"): _ordered_dict,
    **{(builtins, name): _set for builtins in ("builtins", "__builtin__") for name in ("set", "frozenset")},
    **{(builtins, name): _record for builtins in ("builtins", "__builtin__") for name in ("slice", "complex", "range")},
    ("_codecs", "encode"): _encode,
    **{(copyreg, "_reconstructor"): _reconstructed for copyreg in ("copyreg", "copy_reg")},
    **{(module, name): _record for module in ("pathlib", "pathlib._local") for name in _PATHS},
    **{("datetime", name): _record for name in _CLASSES["datetime"]},
    ("torch", "Size"): _size,
    ("torch", "device"): _record,
    ("torch.serialization", "_get_layout"): _record,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    ("torch.nn.backends.thnn", "_get_thnn_function_backend"): _record,  # in modules of torch before 1.2
    ("numpy", "dtype"): _record,
    **{
        (f"numpy.{core}.multiarray", name): _record for core in ("core", "_core") for name in ("scalar", "_reconstruct")
    },
}

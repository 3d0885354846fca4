"""The state dict of a pickled module: names and tensors in the order of `torch.nn.Module.state_dict`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloverleaf.weights.torch_file.values import HOSTILE, UNUSUAL, Record, TensorRef, Unreadable, shown

_MAX_DEPTH = 64
_MAX_PARTS = 300_000  # tensors, modules and empty slots; the largest published model has some 5000
_MAX_NAME = 200
_END = (object(), None)


def is_module(value: object) -> bool:
    """Whether ``value`` is a record of something that `torch.nn.Module` made."""
    return isinstance(value, Record) and isinstance(value.attributes.get("_modules"), dict)


def state_dict_of(root: Record) -> tuple[dict[str, TensorRef], frozenset[str]]:
    """Parameters, then persistent buffers, then children, of each module in turn; and the classes of the modules.

    Raises:
        Unreadable: a module contains itself, is nested too deeply, or is none.
    """
    tensors: dict[str, TensorRef] = {}
    classes = {root.cls.path}
    parts = _count(root)
    _own_tensors("", root, tensors)
    open_modules: list[tuple[Record, str, Iterator[tuple[object, object]]]] = [(root, "", _children(root, ""))]
    while open_modules:
        _, prefix, children = open_modules[-1]
        name, child = next(children, _END)
        if name is _END[0]:
            open_modules.pop()
            continue
        if child is None:  # a slot that was emptied
            continue
        path = f"{prefix}{_name(name, prefix)}"
        if not isinstance(child, Record) or not is_module(child):
            raise Unreadable(f"{shown(path)} stands where a module should, but is none", UNUSUAL)
        if any(child is module for module, _, _ in open_modules):
            raise Unreadable(f"module {shown(path)} contains itself", HOSTILE)
        classes.add(child.cls.path)
        parts += _count(child)
        if len(open_modules) >= _MAX_DEPTH or parts > _MAX_PARTS:
            raise Unreadable(f"its modules are nested too deeply or too many (at {shown(path)})", HOSTILE)
        _own_tensors(f"{path}.", child, tensors)
        open_modules.append((child, f"{path}.", _children(child, path)))
    return tensors, frozenset(classes)


def _count(module: Record) -> int:
    """Its parts, and itself."""
    return 1 + sum(len(_mapping(module, kind, "")) for kind in ("_parameters", "_buffers", "_modules"))


def _own_tensors(prefix: str, module: Record, tensors: dict[str, TensorRef]) -> None:
    passing = module.attributes.get("_non_persistent_buffers_set")
    for kind in ("_parameters", "_buffers"):
        for name, value in _mapping(module, kind, prefix).items():
            path = f"{prefix}{_name(name, prefix)}"
            if value is None or (kind == "_buffers" and isinstance(passing, set | frozenset) and name in passing):
                continue
            if not isinstance(value, TensorRef) or path in tensors:
                raise Unreadable(f"{shown(path)} stands where a tensor should, but is none or there twice", UNUSUAL)
            tensors[path] = value


def _children(module: Record, path: str) -> Iterator[tuple[object, object]]:
    return iter(_mapping(module, "_modules", path).items())


def _mapping(module: Record, kind: str, path: str) -> Mapping[object, object]:
    found = module.attributes.get(kind, {})
    if not isinstance(found, dict):
        raise Unreadable(f"{kind} of module {shown(path or '(top)')} is no dict", UNUSUAL)
    return found


def _name(name: object, prefix: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or "." in name:
        raise Unreadable(f"a part of module {shown(prefix or '(top)')} has the name {shown(name)}", HOSTILE)
    return name

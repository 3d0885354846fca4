"""An interpreter of pickle opcodes that can only build plain containers and inert records.

It is no unpickler with hooks: it reads the opcodes with `pickletools`, which describes them and runs nothing, and does
for each what stands below. There is no way from a file to a function of Python's.
"""

from __future__ import annotations

import io
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from cloverleaf.weights.torch_file import names
from cloverleaf.weights.torch_file.values import DAMAGED, HOSTILE, Record, Unreadable, shown

MAX_OPERATIONS = 2_000_000  # the largest published model with its average needs a sixth of it
_MAX_BITS = 512

_CONSTANTS = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False,
}  # fmt: skip
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_REFUSED = {
    "EXT1": "an extension code", "EXT2": "an extension code", "EXT4": "an extension code",
    "OBJ": "a call by its class", "PERSID": "a storage named by text", "NEXT_BUFFER": "a buffer outside the file",
    "READONLY_BUFFER": "a buffer outside the file",
}  # fmt: skip


def run(stream: io.BytesIO, persistent: Callable[[object], object]) -> object:
    """The value of the pickle at the position of ``stream``, which is left behind its end.

    Args:
        stream: at most as long as its owner wants to keep in memory several times over.
        persistent: gives the value of a persistent id, by which torch names storages.

    Raises:
        Unreadable: it is truncated, no pickle, or holds anything but data; the message has the name of the global.
    """
    machine = _Machine(persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPERATIONS:
                raise Unreadable(f"its pickle has more than {MAX_OPERATIONS} operations", HOSTILE)
            machine.step(opcode.name, argument)
    except (ValueError, OverflowError) as error:  # what `pickletools` raises for damaged streams
        raise Unreadable(f"its pickle is damaged ({shown(str(error))})") from error
    return machine.result()


class _Machine:
    """A stack of values, the stacks below each mark, and the memo."""

    def __init__(self, persistent: Callable[[object], object]) -> None:
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(_literal(argument))
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode == "INST":
            module, _, name = argument.partition(" ")
            raise Unreadable(f"it calls {shown(names.resolve(module, name).path)} (opcode INST)", HOSTILE)
        else:
            raise Unreadable(f"it uses {_REFUSED.get(opcode, 'something unknown')} (opcode {opcode})", HOSTILE)

    def result(self) -> object:
        if len(self.stack) != 1 or self.below:
            raise Unreadable("its pickle does not end with exactly one value", DAMAGED)
        return self.stack[0]

    def pop(self) -> Any:
        if not self.stack:
            raise Unreadable("its pickle takes values that it has not made", HOSTILE)
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise Unreadable("its pickle takes values that it has not made", HOSTILE)
        return self.stack[-1]

    def to_mark(self) -> list[Any]:
        """The values above the last mark, which is taken away."""
        if not self.below:
            raise Unreadable("its pickle ends a group that it has not begun", HOSTILE)
        values, self.stack = self.stack, self.below.pop()
        return values

    # One method for each opcode that is not a literal.

    def nothing(self, _: Any) -> None:
        """PROTO and FRAME describe the stream; STOP ends it."""

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def drop(self, _: Any) -> None:
        if self.stack or not self.below:
            self.pop()
        else:
            self.to_mark()

    def drop_to_mark(self, _: Any) -> None:
        self.to_mark()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self.top())

    def put(self, slot: int) -> None:
        if not 0 <= slot < 2**32:
            raise Unreadable("its pickle numbers its values beyond 32 bits", HOSTILE)
        self.memo[slot] = self.top()

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.top()

    def get(self, slot: int) -> None:
        if slot not in self.memo:
            raise Unreadable(f"its pickle refers to value {slot}, which is not there", HOSTILE)
        self.stack.append(self.memo[slot])

    def new(self, kind: Callable[[], Any]) -> None:
        self.stack.append(kind())

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def tuple_from_mark(self, _: Any) -> None:
        values = tuple(self.to_mark())
        self.stack.append(values)

    def list_from_mark(self, _: Any) -> None:
        values = self.to_mark()
        self.stack.append(values)

    def frozenset_from_mark(self, _: Any) -> None:
        values = frozenset(names.key(value) for value in self.to_mark())
        self.stack.append(values)

    def dict_from_mark(self, _: Any) -> None:
        values = self.to_mark()
        self.stack.append(dict(_pairs(values)))

    def append(self, _: Any) -> None:
        self._extend([self.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self.to_mark())

    def set_item(self, _: Any) -> None:
        value, name = self.pop(), self.pop()
        self._update([name, value])

    def set_items(self, _: Any) -> None:
        self._update(self.to_mark())

    def add_items(self, _: Any) -> None:
        values = self.to_mark()
        self._kind(set).update(names.key(value) for value in values)

    def global_named(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(names.resolve(module, name))

    def global_from_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(names.resolve(module, name))

    def reduce(self, _: Any) -> None:
        args, function = self.pop(), self.pop()
        self.stack.append(names.call(function, args))

    def new_object(self, _: Any) -> None:
        args, cls = self.pop(), self.pop()
        self.stack.append(names.instance(cls, args))

    def new_object_with_names(self, _: Any) -> None:
        by_name, args, cls = self.pop(), self.pop(), self.pop()
        if not isinstance(by_name, dict):
            raise Unreadable("the named arguments of an instance in it are no dict", HOSTILE)
        self.stack.append(names.instance(cls, args))

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, OrderedDict) and isinstance(state, dict):
            return  # Python attributes of an ordered dict: the version table of a state dict
        if not isinstance(target, Record):
            raise Unreadable(f"it sets the state of a {type(target).__name__}", HOSTILE)
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)  # (__dict__, __slots__) or __dict__
        for part in parts:
            if isinstance(part, dict):
                target.attributes.update((name, value) for name, value in part.items() if isinstance(name, str))

    def persistent_id(self, _: Any) -> None:
        self.stack.append(self.persistent(self.pop()))

    def _extend(self, values: list[Any]) -> None:
        target = self._kind(list | Record)
        (target.values if isinstance(target, Record) else target).extend(values)

    def _update(self, flat: list[Any]) -> None:
        target = self._kind(dict | Record)
        (target.items if isinstance(target, Record) else target).update(_pairs(flat))

    def _kind(self, kind: Any) -> Any:
        target = self.top()
        if not isinstance(target, kind):
            raise Unreadable(f"it puts values into a {type(target).__name__}", HOSTILE)
        return target


def _literal(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise Unreadable(f"an integer in it has {value.bit_length()} bits", HOSTILE)
    return value


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    if len(flat) % 2:
        raise Unreadable("a key in it has no value", HOSTILE)
    return [(names.key(name), value) for name, value in zip(flat[::2], flat[1::2], strict=True)]


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.nothing, "FRAME": _Machine.nothing, "STOP": _Machine.nothing,
    "MARK": _Machine.mark, "POP": _Machine.drop, "POP_MARK": _Machine.drop_to_mark, "DUP": _Machine.duplicate,
    "PUT": _Machine.put, "BINPUT": _Machine.put, "LONG_BINPUT": _Machine.put, "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get, "BINGET": _Machine.get, "LONG_BINGET": _Machine.get,
    "EMPTY_LIST": lambda m, _: m.new(list), "EMPTY_DICT": lambda m, _: m.new(dict),
    "EMPTY_SET": lambda m, _: m.new(set), "BYTEARRAY8": lambda m, value: m.stack.append(bytes(value)),
    "EMPTY_TUPLE": lambda m, _: m.tuple_of(0), "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2), "TUPLE3": lambda m, _: m.tuple_of(3),
    "TUPLE": _Machine.tuple_from_mark, "LIST": _Machine.list_from_mark, "DICT": _Machine.dict_from_mark,
    "FROZENSET": _Machine.frozenset_from_mark,
    "APPEND": _Machine.append, "APPENDS": _Machine.appends, "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items, "ADDITEMS": _Machine.add_items,
    "GLOBAL": _Machine.global_named, "STACK_GLOBAL": _Machine.global_from_stack,
    "REDUCE": _Machine.reduce, "NEWOBJ": _Machine.new_object, "NEWOBJ_EX": _Machine.new_object_with_names,
    "BUILD": _Machine.build, "BINPERSID": _Machine.persistent_id,
}  # fmt: skip

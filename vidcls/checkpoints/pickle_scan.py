"""A checkpoint's pickle, walked through before torch sees it. Nothing is built, called or imported.

``weights_only`` keeps torch from running a stranger's code, but not from being led into work without end: a nest of
``_codecs.encode(x, "hex")`` doubles its memory at each level, and a dictionary key that is a tuple of shared tuples
never finishes hashing. This machine knows the opcodes that `torch.save` writes and goes through them with stand-ins
for the values. It admits plain containers with text or numbers as keys, dense tensors, and `argparse.Namespace` as the
values beside the weights; whatever else a pickle asks for is refused by name.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_OPCODES = 2_000_000  # a large training state has some 300,000
MAX_KEY_BYTES = 1024

NAMESPACE = "argparse.Namespace"

Data = bytes | mmap.mmap


class RefusedError(Exception):
    """What is wrong with a pickle, and what to do about it."""

    def __init__(self, problem: str, remedy: str = "re-save only the model's state_dict()") -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


class DamagedError(RefusedError):
    """The pickle ends too early, or its opcodes do not fit together."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"damaged torch file ({reason})", "fetch it again")


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names."""

    name: str


@dataclass(frozen=True)
class Stand:
    """Stands for a value of which only the kind matters."""

    kind: str


ATOM, DICT, STORAGE, TENSOR, OBJECT, SPACE = map(
    Stand, ("atom", "dict", "storage", "tensor", "object", "namespace")
)

# Bytes of one element; a name without its torch package.
STORAGES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "storage.UntypedStorage": 1,
    "storage._UntypedStorage": 1,
}
DTYPES = frozenset(
    "float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64".split()
)


def _is_plain(value: Any) -> bool:
    """Whether hashing the value takes no time to speak of."""
    return value is ATOM or isinstance(value, (bytes, int))


def _rebuild_tensor(args: tuple[Any, ...]) -> Stand | None:
    return TENSOR if args and args[0] is STORAGE else None


def _rebuild_parameter(args: tuple[Any, ...]) -> Stand | None:
    return TENSOR if args and args[0] is TENSOR else None


def _rebuild_from_type(args: tuple[Any, ...]) -> Stand | None:
    """``(function, type, arguments, attributes)`` of a tensor that has attributes."""
    if len(args) != 4 or not isinstance(args[0], Global) or not isinstance(args[2], tuple):
        return None
    plain = args[1] in (Global("torch.Tensor"), Global("torch.nn.parameter.Parameter"))
    function = CALLS.get(args[0].name) if args[0].name.startswith("torch._utils.") else None
    return function(args[2]) if plain and function is not None else None


def _encode(args: tuple[Any, ...]) -> Stand | None:
    """How Python 3 writes bytes for readers of protocol 2; any other codec could make more of them."""
    return ATOM if len(args) == 2 and isinstance(args[0], bytes) and args[1] == b"latin1" else None


def _set(args: tuple[Any, ...]) -> Stand | None:
    items = args[0] if len(args) == 1 else None
    return OBJECT if isinstance(items, list) and all(map(_is_plain, items)) else None


def _plain_arguments(kind: Stand) -> Callable[[tuple[Any, ...]], Stand | None]:
    return lambda args: kind if all(map(_is_plain, args)) else None


CALLS: dict[str, Callable[[tuple[Any, ...]], Stand | None]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": lambda args: OBJECT if len(args) == 1 and isinstance(args[0], tuple) else None,
    "torch.device": _plain_arguments(OBJECT),
    "collections.OrderedDict": lambda args: DICT if not args else None,
    "collections.Counter": lambda args: DICT if args in ((), (DICT,)) else None,
    "builtins.set": _set,
    "builtins.complex": _plain_arguments(ATOM),
    "_codecs.encode": _encode,
}
NAMES = frozenset(
    [*CALLS, NAMESPACE, "torch.Tensor", "torch.nn.parameter.Parameter"]
    + [f"torch.{name}" for name in (*STORAGES, *DTYPES)]
)


@dataclass
class Scan:
    """Goes through one pickle after another of a file.

    Attributes:
        data: The bytes.
        position: Where the next pickle begins.
        storages: Key of each storage that was named → bytes that it claims.
    """

    data: Data
    position: int = 0
    storages: dict[bytes, int] = field(default_factory=dict)
    opcodes: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pickle(self) -> Any:
        """Go through one pickle and return the stand-in for its value.

        Raises:
            RefusedError: It is damaged, or asks for what no plain checkpoint needs.
        """
        self.stack, self.marks, self.memo = [], [], {}
        try:
            while (opcode := self.byte()) != STOP:
                self.opcodes += 1
                if self.opcodes > MAX_OPCODES:
                    raise RefusedError(
                        "has more entries than any checkpoint", "check that it is a checkpoint"
                    )
                step = STEPS.get(opcode)
                if step is None:
                    raise RefusedError(f"uses the pickle opcode {opcode:#04x}, which torch.save never writes")
                step(self)
            return self.stack.pop()
        except (IndexError, KeyError, struct.error, TypeError) as error:
            raise DamagedError(f"{type(error).__name__} at byte {self.position} of its pickle") from error

    def byte(self) -> int:
        value = self.data[self.position]
        self.position += 1
        return value

    def read(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.data):
            raise DamagedError("its pickle ends too early")
        start, self.position = self.position, end
        return self.data[start:end]

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + 256)
        if end < 0:
            raise DamagedError("a name in its pickle has no end")
        return self.read(end + 1 - self.position)[:-1].decode("utf-8", "replace")

    def items(self) -> list[Any]:
        """What was put on the stack since the last mark."""
        found, self.stack = self.stack, self.marks.pop()
        return found

    def named(self) -> None:
        module, name = self.line(), self.line()
        name = f"{'builtins' if module == '__builtin__' else module}.{name}"  # as protocol 2 spells it
        if name.startswith("torch._utils._rebuild_") and name not in NAMES:
            kind = name.removeprefix("torch._utils._rebuild_")
            raise RefusedError(
                f"holds a tensor of another kind ({kind})", "only plain dense weights can be read"
            )
        if name not in NAMES:
            raise RefusedError(
                f"needs the class or function {name!r}, and running code from a checkpoint is refused",
                "re-save only the state_dict() in the environment the file came from",
            )
        self.stack.append(Global(name))

    def call(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        known = CALLS.get(function.name) if isinstance(function, Global) else None
        made = known(args) if known is not None and isinstance(args, tuple) else None
        if made is None:
            name = function.name if isinstance(function, Global) else "a value"
            raise RefusedError(f"calls {name!r} in a way that no plain checkpoint does")
        self.stack.append(made)

    def new_object(self) -> None:
        args, made = self.stack.pop(), self.stack.pop()
        if made != Global(NAMESPACE) or args != ():
            raise RefusedError("makes an object of a class, and running code from a checkpoint is refused")
        self.stack.append(SPACE)

    def build(self) -> None:
        """Attributes of a namespace, or of the dictionary that ``state_dict()`` returns."""
        state = self.stack.pop()
        if self.stack[-1] not in (SPACE, DICT) or state is not DICT:
            raise RefusedError("sets attributes in a way that no plain checkpoint does")

    def storage(self) -> None:
        claim = self.stack.pop()
        if not isinstance(claim, tuple) or len(claim) < 5 or claim[0] != b"storage":
            raise RefusedError("refers to data in a way that no plain checkpoint does")
        kind, key, count = claim[1], claim[2], claim[4]
        size = STORAGES.get(kind.name.removeprefix("torch.")) if isinstance(kind, Global) else None
        if size is None or not isinstance(key, bytes) or not isinstance(count, int) or count < 0:
            raise RefusedError("refers to data in a way that no plain checkpoint does")
        self.storages[key] = max(self.storages.get(key, 0), count * size)
        self.stack.append(STORAGE)

    def set_items(self, pairs: list[Any]) -> None:
        if self.stack[-1] is not DICT:
            raise DamagedError("entries of what is not a dictionary")
        for key in pairs[::2]:
            if not _is_plain(key):
                raise RefusedError(
                    "has a dictionary key that is neither text nor a number", "check that it is a checkpoint"
                )
            if isinstance(key, bytes) and len(key) > MAX_KEY_BYTES:
                raise RefusedError(
                    f"has a dictionary key of {len(key)} bytes", "check that it is a checkpoint"
                )

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise DamagedError("items of what is not a list")
        self.stack[-1].extend(items)

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise DamagedError("its pickle takes more than it holds")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def protocol(self) -> None:
        version = self.byte()
        if version != 2:
            raise RefusedError(
                f"is a pickle of protocol {version}, which torch.save does not write by itself"
            )

    def number(self, form: str) -> int:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]


def _push(value: Any) -> Callable[[Scan], None]:
    return lambda scan: scan.stack.append(value)


def _push_number(form: str) -> Callable[[Scan], None]:
    return lambda scan: scan.stack.append(scan.number(form))


def _put(form: str) -> Callable[[Scan], None]:
    return lambda scan: scan.memo.__setitem__(scan.number(form), scan.stack[-1])


def _get(form: str) -> Callable[[Scan], None]:
    return lambda scan: scan.stack.append(scan.memo[scan.number(form)])


def _mark(scan: Scan) -> None:
    scan.marks.append(scan.stack)
    scan.stack = []


def _float(scan: Scan) -> None:
    scan.read(8)
    scan.stack.append(ATOM)


def _long(scan: Scan) -> None:
    scan.stack.append(int.from_bytes(scan.read(scan.byte()), "little", signed=True))


def _list(scan: Scan) -> None:
    scan.stack.append([])


def _tuple(scan: Scan) -> None:
    items = tuple(scan.items())
    scan.stack.append(items)


def _set_item(scan: Scan) -> None:
    value, key = scan.stack.pop(), scan.stack.pop()
    scan.set_items([key, value])


STOP = ord(".")
STEPS: dict[int, Callable[[Scan], None]] = {
    ord(letter): step
    for letter, step in {
        "\x80": Scan.protocol,
        "c": Scan.named,
        "R": Scan.call,
        "\x81": Scan.new_object,
        "b": Scan.build,
        "Q": Scan.storage,
        "(": _mark,
        "t": _tuple,
        "\x85": lambda scan: scan.tuple_of(1),
        "\x86": lambda scan: scan.tuple_of(2),
        "\x87": lambda scan: scan.tuple_of(3),
        "a": lambda scan: scan.extend([scan.stack.pop()]),
        "e": lambda scan: scan.extend(scan.items()),
        "s": _set_item,
        "u": lambda scan: scan.set_items(scan.items()),
        "N": _push(ATOM),
        "\x88": _push(ATOM),
        "\x89": _push(ATOM),
        ")": _push(()),
        "]": _list,
        "}": _push(DICT),
        "J": _push_number("<i"),
        "K": _push_number("<B"),
        "M": _push_number("<H"),
        "\x8a": _long,
        "G": _float,
        "X": lambda scan: scan.stack.append(scan.read(scan.number("<I"))),
        "U": lambda scan: scan.stack.append(scan.read(scan.byte())),
        "h": _get("<B"),
        "j": _get("<I"),
        "q": _put("<B"),
        "r": _put("<I"),
    }.items()
}


def scan_pickle(data: Data) -> dict[bytes, int]:
    """Go through the pickle of a zip checkpoint.

    Returns:
        Key of each storage → bytes that it claims.

    Raises:
        RefusedError: It is damaged, or asks for what no plain checkpoint needs.
    """
    scan = Scan(data)
    scan.pickle()
    return scan.storages


def scan_legacy(data: Data) -> None:
    """Go through the five pickles at the front of a file that torch wrote before version 1.6.

    They are a magic number, the version, the machine's sizes, the content, and the keys of the storages that follow.

    Raises:
        RefusedError: One is damaged or asks for what no plain checkpoint needs, or the storages claim more bytes
            than there are.
    """
    scan = Scan(data)
    keys = [scan.pickle() for _ in range(5)][-1]
    if not isinstance(keys, list) or not all(isinstance(key, bytes) for key in keys):
        raise DamagedError("the keys of its storages are not a list of names")
    claimed = sum(scan.storages.values())
    if claimed > len(data):
        raise RefusedError(f"claims {claimed} bytes of weights and has {len(data)}", "fetch it again")

"""A pickle reader that can make tensors and plain values, and nothing else.

Python's own unpickler calls what a file names. This one has no way to import or call anything: a name of the file is
looked up in a table of :class:`Symbol` objects (:mod:`.symbols`), and a call reaches the function of that table alone,
which checks its arguments. Attributes are set on nothing: the ``BUILD`` instruction is understood by the
:class:`Shell` objects of the table and, for the versions of modules, by ``OrderedDict``.
"""

import struct
from collections import Counter, OrderedDict
from typing import Any, BinaryIO, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from .errors import Fault, Refusal

MAX_NUMBER_BYTES = 64  # of an integer: nothing in a checkpoint is larger than a 64-bit seed
SIZED = (str, bytes, bytearray, list, tuple, dict, set)
KEYS = (str, bytes, int, float, bool, type(None))
# Python hashes numbers, and tuples of them, without a secret: a file can hold any number of keys that have one hash,
# and a table of n such keys takes n * n steps. Optimizers number their parameters; nothing needs many tuples.
MAX_NUMBER_KEYS, MAX_TUPLE_KEYS, MAX_TUPLE = 20_000, 1000, 64
# What calls may copy or make, in bytes for each byte of the file; a call counts as CALL_BYTES at least. A few bytes
# could otherwise ask for copies of one large string again and again.
COPIES, CALL_BYTES, SPARE = 8, 64, 1 << 20


class Symbol:
    """A name that files may use.

    Attributes:
        name (str): The name, 'module.name'.
        call (Callable, optional): What stands for a call of it. Defaults to None: it cannot be called.
        new (Callable, optional): What stands for making an object of it. Defaults to None: none can be made.
    """

    __slots__ = ('call', 'name', 'new')

    def __init__(self, name: str, call: Optional[Callable] = None, new: Optional[Callable] = None) -> None:
        self.name = name
        self.call = call
        self.new = new


class Shell:
    """An object whose state has not been read yet; it is replaced when the state is read."""

    def __init__(self) -> None:
        self.memo_keys: List[int] = []

    def build(self, state: Any) -> Any:
        """The object with this state."""
        raise NotImplementedError


def check_keys(keys: Iterable[Any], place: int = 0) -> None:
    """Check that keys are plain values, or flat tuples of them, and that a table with them is made in little time.

    Python hashes a key as deep as it is nested, without a limit: a deep tuple would end the process.

    Args:
        keys (iterable): The keys.
        place (int): Entries that the table has before. Defaults to 0.

    Raises:
        Fault: If they are not.
    """
    for index, key in enumerate(keys, place):
        if type(key) is tuple and len(key) > MAX_TUPLE:
            raise Fault(f'it holds a tuple of {len(key)} values as a key')
        for part in key if type(key) is tuple else (key,):
            if type(part) not in KEYS:
                raise Fault(f'it holds a {type(part).__name__} as a key')
            if type(part) is int and not -(1 << 63) <= part < 1 << 63:
                raise Fault('it holds an integer of more than 64 bits as a key')
        if type(key) not in (str, bytes):
            limit = MAX_TUPLE_KEYS if type(key) is tuple else MAX_NUMBER_KEYS
            if index >= limit:
                raise Fault(f'it holds a table of more than {limit} entries with a {type(key).__name__} as a key')


class Mark:
    """Place on the stack where the items of a container begin."""


MARK = Mark()


def _is_version(item: Tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and type(item[1]) in KEYS


class RestrictedUnpickler:
    """Reads one pickled object, of protocols 2 to 5.

    Args:
        file (BinaryIO): File, at the beginning of the pickle.
        size (int): Size of the file in bytes; no string may claim to be longer.
        symbols (mapping[str, object]): What the names in the file stand for: symbols, or plain values.
        persistent_load (Callable): Returns the object of a persistent id.
    """

    def __init__(
        self, file: BinaryIO, size: int, symbols: Mapping[str, Any], persistent_load: Callable[[Any], Any]
    ) -> None:
        self.file = file
        self.size = size
        self.symbols = symbols
        self.persistent_load = persistent_load
        self.stack: List[Any] = []
        self.memo: Dict[int, Any] = {}
        self.budget = COPIES * size + SPARE

    def load(self) -> Any:
        """Read the object.

        Raises:
            Fault: If the pickle is damaged, or asks for something that is not in the table.
        """
        while True:
            code = self.read(1)
            if code == b'.':
                value = self.pop()
                if self.stack:
                    raise Fault('its pickle ends with objects left over')
                return value
            instruction = INSTRUCTIONS.get(code)
            if instruction is None:
                raise Refusal(f'its pickle holds the instruction {code!r}, which checkpoints do not need')
            instruction(self)

    def read(self, count: int) -> bytes:
        if count > self.size:
            raise Fault('its pickle is damaged: a string is longer than the file')
        data = self.file.read(count)
        if len(data) != count:
            raise Fault('its pickle is cut off')
        return data

    def read_line(self) -> str:
        line = self.file.readline(1000)
        if not line.endswith(b'\n'):
            raise Fault('its pickle is damaged: a name has no end')
        return line[:-1].decode()

    def read_number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise Fault('its pickle is damaged: an object is missing')
        return self.stack.pop()

    def top(self) -> Any:
        value = self.pop()
        self.push(value)
        return value

    def pop_items(self) -> List[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise Fault('its pickle is damaged: a container has no beginning')

    def put(self, key: int) -> None:
        value = self.top()
        if isinstance(value, Shell):
            value.memo_keys.append(key)
        self.memo[key] = value

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise Fault('its pickle is damaged: it refers to an object that is not there')
        self.push(self.memo[key])

    def push_number(self, form: str) -> None:
        self.push(self.read_number(form))

    def push_long(self, count: int) -> None:
        if not 0 <= count <= MAX_NUMBER_BYTES:
            raise Fault(f'it holds an integer of {count} bytes')
        self.push(int.from_bytes(self.read(count), 'little', signed=True))

    def push_text(self, count: int) -> None:
        self.push(self.read(count).decode('utf-8', 'surrogatepass'))

    def push_symbol(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Fault('its pickle is damaged: a name is not text')
        found = self.symbols.get(f'{module}.{name}')
        if found is None:
            raise Refusal(f'it holds more than tensors and plain values, namely {module}.{name}')
        self.push(found)

    def push_symbol_of_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.push_symbol(module, name)

    def push_tuple(self, count: int) -> None:
        self.push(tuple(reversed([self.pop() for _ in range(count)])))

    def reduce(self) -> None:
        args, function = self.pop(), self.pop()
        self.push(self._call(function, 'call', args))

    def new_object(self) -> None:
        args, function = self.pop(), self.pop()
        self.push(self._call(function, 'new', args))

    def _call(self, function: Any, kind: str, args: Any) -> Any:
        target = getattr(function, kind) if isinstance(function, Symbol) else None
        if target is None or not isinstance(args, tuple):
            name = function.name if isinstance(function, Symbol) else type(function).__name__
            raise Refusal(f'it asks for a call of {name}, which is not among the calls that make tensors')
        self._spend(args)
        try:
            return target(*args)
        except TypeError as error:
            raise Fault(f'its call of {function.name} has the wrong arguments') from error

    def _spend(self, arguments: Any) -> None:
        """Count what a call may copy of its arguments."""
        parts = arguments if isinstance(arguments, tuple) else (arguments,)
        self.budget -= CALL_BYTES + sum(len(part) for part in parts if isinstance(part, SIZED))
        if self.budget < 0:
            raise Fault('its calls make far more data than the file has bytes')

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        if isinstance(target, Shell):
            self._spend(state)
            value = target.build(state)
            for key in target.memo_keys:
                self.memo[key] = value
            self.push(value)
        elif type(target) is OrderedDict:
            self._build_metadata(target, state)
            self.push(target)
        else:
            raise Refusal(f'it asks to change the attributes of a {type(target).__name__}')

    @staticmethod
    def _build_metadata(target: OrderedDict, state: Any) -> None:
        """Versions of a model's modules, which ``state_dict`` attaches to what it returns."""
        metadata = state.get('_metadata') if isinstance(state, dict) and list(state) == ['_metadata'] else None
        if not isinstance(metadata, dict) or not all(
            isinstance(name, str) and isinstance(value, dict) and all(map(_is_version, value.items()))
            for name, value in metadata.items()
        ):
            raise Fault('the versions of its modules are not a table of numbers')
        target._metadata = metadata

    def append(self, items: List[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise Fault(f'its pickle is damaged: it appends to a {type(target).__name__}')
        target.extend(items)

    def append_one(self) -> None:
        item = self.pop()
        self.append([item])

    def set_items(self, items: List[Any]) -> None:
        target = self.top()
        if type(target) not in (dict, OrderedDict, Counter) or len(items) % 2:
            raise Fault(f'its pickle is damaged: it sets items of a {type(target).__name__}')
        check_keys(items[::2], len(target))
        for key, value in zip(items[::2], items[1::2]):
            target[key] = value

    def set_one(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def add_items(self) -> None:
        items = self.pop_items()
        target = self.top()
        if type(target) is not set:
            raise Fault(f'its pickle is damaged: it adds to a {type(target).__name__}')
        check_keys(items, len(target))
        target.update(items)

    def set_memo_next(self) -> None:
        self.put(len(self.memo))

    def persistent(self) -> None:
        self.push(self.persistent_load(self.pop()))

    def push_dict_of_items(self) -> None:
        items = self.pop_items()
        self.push({})
        self.set_items(items)


INSTRUCTIONS: Dict[bytes, Callable[[RestrictedUnpickler], Any]] = {
    b'\x80': lambda self: self.read(1),  # PROTO
    b'\x95': lambda self: self.read(8),  # FRAME
    b'(': lambda self: self.push(MARK),
    b'N': lambda self: self.push(None),
    b'\x88': lambda self: self.push(True),
    b'\x89': lambda self: self.push(False),
    b'J': lambda self: self.push_number('<i'),
    b'K': lambda self: self.push_number('<B'),
    b'M': lambda self: self.push_number('<H'),
    b'G': lambda self: self.push_number('>d'),
    b'\x8a': lambda self: self.push_long(self.read_number('<B')),
    b'\x8b': lambda self: self.push_long(self.read_number('<i')),
    b'X': lambda self: self.push_text(self.read_number('<I')),
    b'\x8c': lambda self: self.push_text(self.read_number('<B')),
    b'\x8d': lambda self: self.push_text(self.read_number('<Q')),
    b'B': lambda self: self.push(self.read(self.read_number('<I'))),
    b'C': lambda self: self.push(self.read(self.read_number('<B'))),
    b'\x8e': lambda self: self.push(self.read(self.read_number('<Q'))),
    b'\x96': lambda self: self.push(bytearray(self.read(self.read_number('<Q')))),
    b'U': lambda self: self.push(self.read(self.read_number('<B')).decode('latin-1')),  # of Python 2
    b'T': lambda self: self.push(self.read(self.read_number('<I')).decode('latin-1')),
    b'c': lambda self: self.push_symbol(self.read_line(), self.read_line()),
    b'\x93': lambda self: self.push_symbol_of_stack(),
    b'q': lambda self: self.put(self.read_number('<B')),
    b'r': lambda self: self.put(self.read_number('<I')),
    b'\x94': lambda self: self.set_memo_next(),
    b'h': lambda self: self.get(self.read_number('<B')),
    b'j': lambda self: self.get(self.read_number('<I')),
    b')': lambda self: self.push(()),
    b'\x85': lambda self: self.push_tuple(1),
    b'\x86': lambda self: self.push_tuple(2),
    b'\x87': lambda self: self.push_tuple(3),
    b't': lambda self: self.push(tuple(self.pop_items())),
    b']': lambda self: self.push([]),
    b'}': lambda self: self.push({}),
    b'\x8f': lambda self: self.push(set()),
    b'd': lambda self: self.push_dict_of_items(),
    b'l': lambda self: self.push(self.pop_items()),
    b'a': lambda self: self.append_one(),
    b'e': lambda self: self.append(self.pop_items()),
    b's': lambda self: self.set_one(),
    b'u': lambda self: self.set_items(self.pop_items()),
    b'\x90': lambda self: self.add_items(),
    b'0': lambda self: self.pop(),
    b'R': lambda self: self.reduce(),
    b'\x81': lambda self: self.new_object(),
    b'b': lambda self: self.build(),
    b'Q': lambda self: self.persistent(),
}

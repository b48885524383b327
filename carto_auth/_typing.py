"""What the modules of a start need of ``typing`` when they run, without importing it.

``typing`` takes longer to import than all of this package up to a good token in the cache. Type checkers see
the real things.
"""

from __future__ import annotations

# Type checkers take this name for true, wherever it comes from.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any as Any
    from typing import Generic as Generic
    from typing import NamedTuple as NamedTuple
    from typing import TypeVar as TypeVar
else:
    from collections import namedtuple

    Any = object

    def TypeVar(name):  # noqa: N802 - typing's name
        return name

    class Generic:
        def __class_getitem__(cls, parameter):
            return cls

    class _NamedTupleType(type):
        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = namespace["__annotations__"]
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            base = namedtuple(name, fields, defaults=defaults)
            return type(name, (base,), {"__slots__": (), **namespace})

    class NamedTuple(metaclass=_NamedTupleType):
        """``typing.NamedTuple``, for classes whose annotations are not evaluated."""

"""Value: what the small objects that never change have in common."""

from __future__ import annotations

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any, ClassVar

    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform():
        """Do what a type checker needs to be told, and nothing when the program runs."""
        return lambda cls: cls


@dataclass_transform()
class Value:
    """Compared by its fields, and replaced instead of changed.

    A subclass declares its fields with their types and defaults, as a dataclass does, or sets them in an ``__init__``
    whose parameters have their names. It is no dataclass, because importing ``dataclasses`` takes longer than a start
    with a good token may take.
    """

    _secret: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, secret: tuple[str, ...] = ()) -> None:
        """Let ``repr`` not show the ``secret`` fields, as in ``class Token(Value, secret=("text",))``."""
        cls._secret = secret

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = type(self).__annotations__
        given = {**vars(type(self)), **dict(zip(fields, values, strict=False)), **named}
        if len(values) > len(fields) or not named.keys() <= fields.keys() <= given.keys():
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(fields)}")
        vars(self).update((name, given[name]) for name in fields)

    def replaced(self, **changes: Any) -> Self:
        """The same value with other fields."""
        return type(self)(**{**vars(self), **changes})

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if name in self._secret and value else repr(value)}" for name, value in vars(self).items()
        )
        return f"{type(self).__name__}({', '.join(shown)})"

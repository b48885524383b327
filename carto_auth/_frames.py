"""Frames: what an error that leaves this package shows of the functions it came through.

Error trackers, ``rich`` and ``pytest -l`` show the local variables of each function in a traceback, and those of ours
hold secrets and tokens. The public methods and functions are the boundary: an error that leaves one of them keeps its
lines, but no variables of this package's. Frames of the program around it, and of libraries, are left alone.
"""

from __future__ import annotations

from functools import wraps

# Type checkers take this name for true; typing would cost a start more than all of this package does.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _Decorated = TypeVar("_Decorated", bound=Callable[..., Any])

#: Public too, although their names begin with an underscore.
_CALLED_BY_OTHERS = ("__init__", "__call__", "__setstate__")


def clears_frames(function: _Decorated) -> _Decorated:
    """Make ``function`` a boundary: an error that leaves it shows no variables of ours."""

    if TYPE_CHECKING:
        return function  # whose signature the boundary has

    @wraps(function)
    def bounded(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except BaseException as error:
            del arguments, options
            _forget_variables(error)
            raise

    return bounded


def clears_its_frames(cls: _Decorated) -> _Decorated:
    """Make each public method of ``cls`` a boundary, but for ``get_access_token``, which calls one if it takes long."""
    for name, member in list(vars(cls).items()):
        if name == "get_access_token" or (name.startswith("_") and name not in _CALLED_BY_OTHERS):
            continue
        if isinstance(member, classmethod):
            setattr(cls, name, classmethod(clears_frames(member.__func__)))
        elif isinstance(member, type(clears_frames)):
            setattr(cls, name, clears_frames(member))
    return cls


def _forget_variables(error: BaseException) -> None:
    """Empty the frames of ours in the traceback of ``error``, and in those of all that led to it."""
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += (one.__cause__, one.__context__)
        trace = one.__traceback__
        while trace is not None:
            frame, trace = trace.tb_frame, trace.tb_next
            if f"{frame.f_globals.get('__name__')}.".startswith("carto_auth."):
                try:  # without contextlib: a signal handler may find its import half done
                    frame.clear()
                except RuntimeError:  # it is still running: the boundary around it will do it
                    continue

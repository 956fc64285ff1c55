"""The default of options for which None means something."""

from __future__ import annotations


class _NotSpecified:
    """The class of `NotSpecified`."""

    def __repr__(self) -> str:
        return "<NotSpecified>"

    def __bool__(self) -> bool:
        return False

    def __copy__(self) -> _NotSpecified:
        return self

    def __deepcopy__(self, memo: object) -> _NotSpecified:
        return self


NotSpecified = _NotSpecified()

"""Lines of the package that an execution reaches for the first time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

Line = tuple[str, int]


class Lines:
    """Tracing of the package's lines, as long as a function has some that were never reached.

    folder: where the package lies. reached: lines known before.
    """

    def __init__(self, folder: str, reached: set[Line]) -> None:
        self._folder, self.reached = folder, reached
        self.new: list[Line] = []
        # By identity, since code objects compare by content; they are kept, so none is replaced.
        self._left: dict[int, set[int]] = {}
        self._kept: list[CodeType] = []

    def trace(self, call: Callable[[], object]) -> bool:
        """Call, and say whether the call reached a new line; `new` has all of them since."""
        before = len(self.new)
        sys.settrace(self._called)
        try:
            call()
        finally:
            sys.settrace(None)
            self.grew = len(self.new) > before
        return self.grew

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        left = self._left.get(id(code))
        if left is None:
            left = self._first(code)
        return self._stepped if left else None

    def _first(self, code: CodeType) -> set[int]:
        left: set[int] = set()
        if code.co_filename.startswith(self._folder):
            lines = {line for _, _, line in code.co_lines() if line}
            left = {line for line in lines if (code.co_filename, line) not in self.reached}
        self._kept.append(code)
        self._left[id(code)] = left
        return left

    def _stepped(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        left = self._left[id(frame.f_code)]
        if frame.f_lineno in left:
            left.discard(frame.f_lineno)
            line = (frame.f_code.co_filename, frame.f_lineno)
            self.reached.add(line)
            self.new.append(line)
        return self._stepped if left else None

"""How a child process hears that it should stop, also from a parent that was killed."""

from __future__ import annotations

import os
import select
import signal

_held: set[int] = set()
_own: Lifeline | None = None


class Lifeline:
    """Hold a pipe between a parent and its children that is cut to stop them.

    Nothing is ever written into it. Its end is closed by `cut()`, or by the kernel when the parent
    dies in whatever way; every child sees that at once.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        _held.add(self._writer)
        self._asked = False

    def adopt(self) -> None:
        """Make this the lifeline on which the current process, a forked child, hangs."""
        global _own
        while _held:  # copies of the parent's ends would keep brothers and sisters alive
            os.close(_held.pop())
        _own = self

    def cut(self) -> None:
        """Tell the children to stop."""
        if self._writer in _held:
            _held.discard(self._writer)
            os.close(self._writer)

    def close(self) -> None:
        """Give both ends back to the system once no child hangs on it any more."""
        self.cut()
        os.close(self._reader)

    def let_go(self) -> None:
        """Make this process, and no other, stop as if the lifeline had been cut (for signals)."""
        self._asked = True

    def let_go_on_signals(self) -> None:
        """Make SIGTERM and SIGINT let this process go.

        The handlers are functions, not SIG_IGN: a program that this process starts would inherit that.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.let_go())

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the lifeline is cut."""
        return self._reader

    def is_set(self) -> bool:
        """Return whether this process should stop."""
        return self.wait(0)

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the end; return whether this process should stop."""
        return self._asked or bool(select.select([self._reader], [], [], timeout)[0]) or self._asked


def draining() -> bool:
    """Return whether this worker process should finish what it has begun and take nothing new.

    Always false outside the processes of `manage.py worker`.
    """
    return _own is not None and _own.is_set()

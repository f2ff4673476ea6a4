"""SIGTERM and Ctrl-C as a wish to stop, which is granted at the next moment that can be gone on from."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = signal.SIGINT, signal.SIGTERM


class Stop:
    """A context manager that notes the first signal; a second one interrupts at once.

    Attributes:
        signal: the signal's number; None as long as there was none.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that ended by the signal: 130 after Ctrl-C, 143 after SIGTERM."""
        return 0 if self.signal is None else 128 + self.signal

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread listen
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

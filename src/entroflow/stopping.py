"""SIGTERM and Ctrl-C as a wish to stop, which is granted at the next moment that can be gone on from."""

import signal
import threading
from typing import Any


class Stop:
    """A context manager that notes the first signal; a second one interrupts at once.

    Attributes:
        signal: the signal's number; 0 as long as there was none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        return bool(self.signal)

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that ended by the signal: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signal if self.signal else 0

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread listen
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number

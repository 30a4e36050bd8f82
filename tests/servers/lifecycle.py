"""What every server of the tests has in common: it runs while a `with` block does."""

from abc import ABC, abstractmethod
from typing import Self


class Server(ABC):
    """Started by the block's begin, closed by its end, and also where it does not start."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

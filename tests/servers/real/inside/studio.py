"""What takes the place of the model: it writes down what it is asked for, waits, and gives a film.

Runs in the server's own environment. The folder is how it is steered: while the file `hold` is in it, no video ends;
a number in the file `bytes` is the size of the films; `asked.jsonl` has a line for each video that was begun.
A video with [fail] in its prompt fails.
"""

import asyncio
import json
import sys
import uuid
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "provider"))

import mp4

SECONDS = 1.0
"""That a video takes."""
_SIZE = 20_000


class Studio:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def make(self, prompt, progress=None, **asked):
        """Make a film; tell `progress` from 0.0 to 1.0.

        Raises:
            RuntimeError: the prompt wants that.
        """
        with (self._folder / "asked.jsonl").open("a") as file:
            file.write(json.dumps({"prompt": prompt, **asked}, default=repr) + "\n")
        steps = 10
        for step in range(steps):
            await asyncio.sleep(SECONDS / steps)
            if progress is not None:
                await progress((step + 1) / steps)
        while (self._folder / "hold").exists():  # noqa: ASYNC110  (it is another process that makes and removes it)
            await asyncio.sleep(0.05)
        if "[fail]" in prompt:
            raise RuntimeError("CUDA out of memory (as the stub has it)")
        size = self._folder / "bytes"
        return mp4.content(uuid.uuid4().hex, int(size.read_text()) if size.exists() else _SIZE)

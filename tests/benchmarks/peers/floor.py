"""The floor: what a script with bare aiohttp and a semaphore needs, that records nothing and flushes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from tests.benchmarks.peers.stage import Order, Script, perform


class Floor(Script):
    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self._url = f"{order.base_url}/videos"
        self._session: aiohttp.ClientSession

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def _close(self) -> None:
        await self._session.close()

    async def _make(self, prompt: str) -> None:
        video = await self._create(prompt)
        pause = 0.0 if self._order.look_first else self._order.poll
        while video["status"] not in {"completed", "failed"}:
            await asyncio.sleep(pause)
            async with self._session.get(f"{self._url}/{video['id']}") as response:
                video = await response.json()
            pause = self._order.poll
        if video["status"] == "completed":
            await self._download(video["id"])

    async def _create(self, prompt: str) -> dict[str, Any]:
        while True:
            form = aiohttp.FormData({"prompt": prompt}, default_to_multipart=True)  # all servers take this one
            async with self._session.post(self._url, data=form) as response:
                if response.status != 429:
                    response.raise_for_status()
                    return dict(await response.json())
            await asyncio.sleep(float(response.headers["Retry-After-Ms"]) / 1000)

    async def _download(self, name: str) -> None:
        async with self._session.get(f"{self._url}/{name}/content") as response:
            response.raise_for_status()
            with (self._order.folder / f"{name}.mp4").open("wb") as file:
                async for chunk in response.content.iter_chunked(65_536):
                    file.write(chunk)


if __name__ == "__main__":
    perform(Floor)

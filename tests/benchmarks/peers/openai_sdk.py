"""The official SDK with a semaphore: `create_and_poll`, then `download_content`, as its documentation shows.

Over httpx or, with the word `aiohttp`, over aiohttp.
"""

from __future__ import annotations

import sys

import openai

from tests.benchmarks.peers.stage import Order, Script, perform

_RETRIES = 10
"""Its own are two: of many videos, some would be lost to refusals by 429."""


class Sdk(Script):
    def __init__(self, order: Order, transport: str) -> None:
        super().__init__(order)
        self._transport = transport
        self._client: openai.AsyncOpenAI

    async def _open(self) -> None:
        http = openai.DefaultAioHttpClient() if self._transport == "aiohttp" else None
        self._client = openai.AsyncOpenAI(
            base_url=self._order.base_url, api_key="key", http_client=http, max_retries=_RETRIES
        )

    async def _close(self) -> None:
        await self._client.close()

    async def _make(self, prompt: str) -> None:
        poll = int(1000 * self._order.poll)
        video = await self._client.videos.create_and_poll(prompt=prompt, poll_interval_ms=poll)
        if video.status == "completed":
            content = await self._client.videos.download_content(video.id)
            content.write_to_file(self._order.folder / f"{video.id}.mp4")


if __name__ == "__main__":
    perform(lambda order: Sdk(order, sys.argv[2]))

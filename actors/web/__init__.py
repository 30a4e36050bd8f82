"""HTTP: health and metrics, on a loop of their own. Imported by `serve --web` alone: nobody else waits for aiohttp."""

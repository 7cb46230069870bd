"""A TCP link with a latency: `python -m benchmarks.delayed_link --to PORT --milliseconds 50`.

It listens on a port that it prints. What comes in on either side goes out on the other so many milliseconds later,
whatever its size.
"""

import argparse
import asyncio
import contextlib
from collections import deque

READ_BYTES = 1 << 16


class Delay:
    """One direction of a connection."""

    def __init__(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, seconds: float) -> None:
        self._source = source
        self._target = target
        self._seconds = seconds
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._more = asyncio.Event()

    async def run(self) -> None:
        """Pass everything on, until the source ends."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take())
            group.create_task(self._give())

    async def _take(self) -> None:
        clock = asyncio.get_running_loop().time
        data = b"-"
        while data:
            data = await self._source.read(READ_BYTES)
            self._waiting.append((clock() + self._seconds, data))
            self._more.set()

    async def _give(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            due, data = self._waiting.popleft()
            await asyncio.sleep(max(0.0, due - clock()))
            if not data:
                self._target.close()
                return
            self._target.write(data)
            await self._target.drain()


async def serve(to: int, seconds: float) -> None:
    """Serve until cancelled."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ExceptionGroup):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to)
            async with asyncio.TaskGroup() as group:
                group.create_task(Delay(reader, far_writer, seconds).run())
                group.create_task(Delay(far_reader, writer, seconds).run())

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=int, required=True, metavar="PORT")
    parser.add_argument("--milliseconds", type=float, required=True, metavar="N")
    options = parser.parse_args()
    asyncio.run(serve(options.to, options.milliseconds / 1000))


if __name__ == "__main__":
    main()

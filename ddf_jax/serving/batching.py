"""Requests that wait together are computed together."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple


class _Waiting(NamedTuple):
    item: Any
    key: Hashable
    result: asyncio.Future[Any]


class Batcher:
    """Computes items in batches, one after the other, in the order of the first item of each.

    A batch is computed when it is full or its first item has waited long enough, and holds what has arrived by then.
    While one is computed, the next one gathers.

    Args:
        compute: items of one key to their results, called in `executor`.
        most: the most items of a batch of this key.
        seconds: that an item waits for others.
        executor: of one thread.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Any]], Sequence[Any]],
        most: Callable[[Any], int],
        seconds: float,
        executor: Executor,
    ) -> None:
        self._compute, self._most, self._seconds, self._executor = compute, most, seconds, executor
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()

    async def submit(self, item: Any, key: Hashable) -> Any:
        """The result for an item, which shares a batch with items of the same key.

        An item whose caller is cancelled is left out where it is not being computed yet.
        """
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, key, result))
        self._arrived.set()
        return await result

    async def run(self) -> None:
        """Computes what is submitted, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._gather()
            if not batch:
                continue
            try:
                items = [waiting.item for waiting in batch]
                outcomes = await loop.run_in_executor(self._executor, self._compute, items)
            except Exception as error:
                for waiting in batch:
                    if not waiting.result.done():
                        waiting.result.set_exception(error)
            else:
                for waiting, outcome in zip(batch, outcomes, strict=True):
                    if not waiting.result.done():
                        waiting.result.set_result(outcome)

    async def _gather(self) -> list[_Waiting]:
        """The items of the next batch that are still wanted."""
        while not self._waiting:
            await self._arrival()
        key, deadline = self._waiting[0].key, asyncio.get_running_loop().time() + self._seconds
        most = self._most(key)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while sum(waiting.key == key for waiting in self._waiting) < most:
                    await self._arrival()
        taken, kept = [], deque()
        for waiting in self._waiting:
            if waiting.result.done():
                continue  # its caller has gone
            fits = waiting.key == key and len(taken) < most
            (taken if fits else kept).append(waiting)
        self._waiting = kept
        return taken

    async def _arrival(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

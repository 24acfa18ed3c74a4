"""Items that wait together share a batch."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from ddf_jax.serving.batching import Batcher


def batches_of(submit, *, most=4, seconds=0.05):
    """The batches that are computed while `submit(batcher)` runs, and its result; a result is ten times its item."""
    computed = []

    def compute(items):
        computed.append(list(items))
        return [10 * item for item in items]

    async def run():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(compute, lambda key: most, seconds, executor)
            task = asyncio.create_task(batcher.run())
            try:
                return await submit(batcher)
            finally:
                task.cancel()

    return computed, asyncio.run(run())


def test_a_full_batch_does_not_wait_and_each_gets_its_own_result():
    async def submit(batcher):
        async with asyncio.timeout(5):
            return await asyncio.gather(*(batcher.submit(item, "key") for item in range(8)))

    assert batches_of(submit, seconds=60) == ([[0, 1, 2, 3], [4, 5, 6, 7]], [10 * item for item in range(8)])


def test_a_batch_that_is_not_full_is_computed_after_the_wait():
    async def submit(batcher):
        return await asyncio.gather(batcher.submit(1, "key"), batcher.submit(2, "key"))

    assert batches_of(submit) == ([[1, 2]], [10, 20])


def test_items_of_different_keys_never_share_a_batch():
    async def submit(batcher):
        return await asyncio.gather(*(batcher.submit(item, item % 2) for item in range(6)))

    assert batches_of(submit, most=2) == ([[0, 2], [1, 3], [4], [5]], [10 * item for item in range(6)])


def test_an_item_whose_caller_has_gone_is_left_out():
    async def submit(batcher):
        gone = asyncio.create_task(batcher.submit(1, "key"))
        await asyncio.sleep(0)
        gone.cancel()
        return await batcher.submit(2, "key")

    assert batches_of(submit) == ([[2]], 20)


def test_an_error_reaches_the_callers_of_its_batch_and_the_next_is_computed():
    def compute(items):
        return [1 // item for item in items]

    async def run():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(compute, lambda key: 1, 0, executor)
            task = asyncio.create_task(batcher.run())
            with pytest.raises(ZeroDivisionError):
                await batcher.submit(0, "key")
            assert await batcher.submit(1, "key") == 1
            task.cancel()

    asyncio.run(run())

"""The iterator over batches, apart from any dataset."""

import multiprocessing

import grain
import numpy as np

from ddf_jax.data.batches import BatchIterator


def test_reading_to_the_end_ends_the_workers():
    iterator = BatchIterator(grain.MapDataset.range(5).batch(2), workers=1, threads=1)
    first = next(iterator)
    assert multiprocessing.active_children()
    assert [np.asarray(batch).tolist() for batch in (first, *iterator)] == [[0, 1], [2, 3], [4]]
    assert not multiprocessing.active_children()

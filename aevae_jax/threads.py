"""Small problems of linear algebra by one thread: several wait for one another longer than they compute."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from threadpoolctl import threadpool_limits

_LOCK = threading.RLock()


@contextlib.contextmanager
def one() -> Iterator[None]:
    """Return a context, or called a decorator, in which BLAS and OpenMP compute with the calling thread alone.

    A mixture fitted to codes solves thousands of systems of a dozen unknowns, for each of which several threads would
    meet. With one, the order of sums is that of every machine, too. BLAS has one number of threads for the whole
    process, so whoever enters waits until nobody else is in there.
    """
    with _LOCK, threadpool_limits(1):
        yield

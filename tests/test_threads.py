"""Small problems of linear algebra by one thread, whoever else asks for that, and as before after it."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_info, threadpool_limits

from aevae_jax import threads


def numbers(kind):
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == kind}


@pytest.fixture
def two():
    """Libraries that compute with two threads, whatever machine this is."""
    np.eye(2) @ np.eye(2)
    with threadpool_limits(2):
        yield


def test_inside_there_is_one_thread_and_outside_as_many_as_before(two):
    for kind in ("blas", "openmp"):
        assert numbers(kind) == {2}
        with threads.one():
            assert numbers(kind) == {1}
            with threads.one():
                assert numbers(kind) == {1}
            assert numbers(kind) == {1}
        assert numbers(kind) == {2}


def test_nobody_sees_a_number_that_another_one_has_set(monkeypatch):
    """Were two in there at a time, the last to leave would put back the 1 that it found."""
    number, found = [2], []

    @contextlib.contextmanager
    def limits(count):
        before, number[0] = number[0], count
        yield
        number[0] = before

    def work():
        with threads.one():
            found.append(number[0])
            time.sleep(0.1 * len(found))  # whoever is first leaves first

    monkeypatch.setattr(threads, "threadpool_limits", limits)
    both = [threading.Thread(target=work) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(10)
    assert (found, number) == ([1, 1], [2])


def test_an_error_leaves_as_many_as_before(two):
    with pytest.raises(ValueError, match="NaN"), threads.one():
        GaussianMixture(2).fit(np.full((5, 2), np.nan))
    assert numbers("blas") == {2}

"""Cores are those that this process may use."""

from __future__ import annotations

import os

from aevae_jax import cores


def test_the_system_is_asked_about_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6} if process == 0 else {1}, raising=False)
    assert cores.available() == 3


def test_where_it_cannot_say_they_are_those_of_the_machine_or_one(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for found, expected in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda found=found: found)
        assert cores.available() == expected

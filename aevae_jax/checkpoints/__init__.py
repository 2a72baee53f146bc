"""Bytes that survive: checkpoints, durable once saved and refused when damaged, locks, signals. Knows no model.

store.py        checkpoints: saved, verified by their hashes, the newest intact one restored
saving.py       when to save and which to keep
manifests.py    what a checkpoint says of itself
array_files.py  named arrays in files, by Orbax
pieces.py       arrays that are divided among processes, in a file of each
together.py     checkpoints that several processes write and read
locks.py        one writer at a time
signals.py      signals that ask a training to leave
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

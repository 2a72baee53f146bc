"""A coder without a model, for tests of what stands around one: a payload is what zlib makes of the symbols."""

from __future__ import annotations

import zlib

import numpy as np


class StandIn:
    """What `chunks.Coder` offers, for any shape and number of levels."""

    def __init__(self, event_shape=(4, 3, 1), levels=256, sha256="ab" * 32):
        self.event_shape, self.levels, self.sha256 = event_shape, levels, sha256
        self.dtype = np.dtype(np.uint8 if levels <= 256 else np.uint16)

    def encode(self, symbols):
        assert symbols.dtype == self.dtype
        assert symbols.shape[1:] == self.event_shape
        return zlib.compress(np.ascontiguousarray(symbols).tobytes())

    def decode(self, payload, n):
        size = n * int(np.prod(self.event_shape)) * self.dtype.itemsize
        try:
            inflater = zlib.decompressobj()
            raw = inflater.decompress(payload, size + 1)
            if not inflater.eof or inflater.unused_data:
                raise ValueError("more or less than one stream")
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if len(raw) != size:
            raise ValueError(f"{len(raw)} bytes, not {size}")
        return np.frombuffer(raw, self.dtype).reshape(n, *self.event_shape)

    def bound(self, symbols):
        return np.full(len(symbols), 8.0 * symbols[0].size)

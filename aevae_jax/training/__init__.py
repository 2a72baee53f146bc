"""Training as pure functions of a state of arrays: the step, the epoch, and how they are dispatched. Knows no VAE.

step.py          the step and the epoch; a step whose numbers are not finite changes nothing
loops.py         how scans and maps over seeds are dispatched on this backend
convolutions.py  convolutions and their gradients as this backend computes them fast
devices.py       how batches and parameters lie on one device, or on several
parameters.py    parameters of the loss, and statistics that no gradient trains
optimizers.py    `AdamW`
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

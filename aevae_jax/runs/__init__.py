"""A run is a value, training a pure function of it, and its directory what that leaves behind.

run.py            `Run`, the value
resolution.py     what it leaves open is taken from the data, and the two are checked against each other
fitting.py        `fit`, `fit_seeds`, `fit_sweep`, `fit_members`, and the directory that training leaves
calls.py          what a training was called with, and all that follows from it before the first step
beginnings.py     where it begins, if that is at another run
fitted.py         a trained model, and how it is read from a directory: `load_run`
sweeps.py         members of a population, which one program trains
members.py        what a population leaves: a run of each member
curves.py         how a run learns, as a picture, also while it does
pictures.py       the pictures of a finished run
progress.py       how far a training is, on a terminal or in a notebook
tracking.py       TensorBoard, Weights & Biases, MLflow, or a tracker of one's own
training_loop.py  the loop: saving, stopping, rolling back when numbers break
trainer.py        a compiled run and its data: from step to step
compilation.py    the programs that it is compiled to
batches.py        which examples a step sees, and where it reads them
rehearsal.py      what a training would be, and about how long it takes
snapshots.py      all that a training is at a step
callbacks.py      who is told what on the way
processes.py      several processes that train as one
resume.py         when to save, and at which step a stopped training resumes
same_run.py       whether a directory holds the run that is asked for
directory.py      the directory of a run
data_of_runs.py   the data of a run, loaded again
judges.py         classifiers that judge samples, trained once
records.py        run.json, metrics.jsonl and results.json, with the digests that they are read by
summaries.py      what a folder of runs holds, read without JAX
weights.py        weights.safetensors
provenance.py     code, versions, device and settings
reproduction.py   `aevae reproduce` and `aevae replay`
non_finite.py     what went wrong at a step: its terms, its examples
tracing.py        which operation first made a number that is not finite
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Does a run survive anything, and is anything wrong taken for right? See `__main__.py`.

table.py       the sections, and the table of what they found
bench.py       starts trainings and looks at what they leave; process.py, child.py
deaths.py      kills, of a run and of a sweep; signals, exits
places.py      no room, no permission, no directory; two in one directory
outcomes.py    damaged checkpoints, NaN, going on at any step, other machines
operations.py  a kill at every operation on files

trials.py      one hostile input: what is done with it, and how what became of it is judged
watch.py       calls whose time, memory and exceptions are seen
workers.py     processes that do many trials each, and are given up when they hang
mutate.py      flips, cuts, links, giants, hostile values: what is done to any file
headers.py     files whose headers lie, and bombs
formats.py     what subjects of all formats share; tiny.py, a run of which hostile ones are made

runs.py        subjects: every file of a run; snapshots.py, its checkpoints; forgeries.py, what a stranger signed
arrays.py      subjects: .npy, .npz, idx; inputs.py, what is encoded and decoded
aev.py         subjects: compressed files
pictures.py    subjects: PNG, JPEG, WebP, TIFF
tables.py      subjects: CSV and Parquet; names.py, what files are called
tfds.py        subjects: directories of TensorFlow Datasets, and the cache
typed.py       subjects: what is typed for an option
writes.py      subjects: directories that are hostile to whoever writes in them
commands.py    subjects: the command line; streams.py, whole processes
"""

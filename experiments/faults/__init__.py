"""Does a run survive anything, and does anything wrong pass for right? See `__main__.py`.

table.py       the sections, and the table of what they found
bench.py       starts trainings and looks at what they leave; process.py, child.py
deaths.py      kills, signals, exits
places.py      no room, no permission, no directory; two in one directory
outcomes.py    damaged checkpoints, NaN, going on at any step, other machines

trials.py      one hostile input: what was done with it, and how that is judged
workers.py     processes that do many trials each, and are given up when they hang
mutate.py      flips, cuts, links, sparse giants, values and names: what is done to any file
subjects.py    what is read: an intact original, and the function that reads it
runs.py        subjects: every file of a run
arrays.py      subjects: .npy, .npz, idx; pictures.py, tables.py, tfds.py: the other formats
typed.py       subjects: what is typed for --data and --model
writes.py      directories that are hostile to whoever writes in them
operations.py  a kill at every operation on files
commands.py    whole `aevae` processes
"""

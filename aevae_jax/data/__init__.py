"""Data sets by name, from files of one's own, or as streams: one value, `Data`, names them all.

loading.py       `Data`, the value that names a data set, and what it reads it with
built_in.py      digits and sprites, which come with the library
datasets.py      what a data set is: sources of rows, splits, and what must be known of them
splits.py        splits without a common example; your own arrays as a data set
checks.py        arrays, labels and levels as people give them, checked
preparation.py   raw values to what the model sees
prepared.py      a data set as training and evaluation consume it
rows.py          how arrays lie in files, and how their rows are read
arrays.py        .npy, .npz and idx files
pictures.py      folders of images
tables.py        the rows of tables and the features that a model sees of them
table_text.py    what is wrong with the text of a CSV file, before it is read
table_columns.py a column's kind inferred from its entries, and raw numbers of columns whose kind is known
table_entries.py the entries of one column: texts, numbers, and what is none
table_files.py   CSV and Parquet files
cache.py         decoded arrays on disk, noticed when damaged
tfds_files.py    what is looked at in a folder of TensorFlow Datasets before anything is read
tfds.py          TensorFlow Datasets: the only file that imports it
tfds_prepare.py  TensorFlow Datasets fetched and written
streams.py       windows of batches with prefetch: the only file that imports Grain
told.py          what models are told of each example: its label, its factors
suited.py        the likelihood and the prior that suit prepared data
inspection.py    what there is to know of a data set before training on it
files.py         what goes into a model and what comes out of it, in files
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The command line: argv -> values -> the functions of the package -> files.

main.py         `aevae` and its list of commands, `aevae train`
evaluate.py     `aevae evaluate`, `compare`
classes.py      figures of each class, of models that are told it
diagnose.py     `aevae diagnose`, `quality`
inputs.py       rows that commands give to a model, and what it is told of them
generate.py     `aevae sample`, `reconstruct`, `interpolate`, `traverse`, `encode`, `decode`
compress.py     `aevae compress`, `decompress`, `info`: .aev files
overview.py     `aevae list`, `show`: what runs there are, without JAX
reruns.py       `aevae reproduce`, `replay`
data.py         `aevae data inspect`, `data prepare`
arguments.py    a function's parameters as what is typed, its docstring as the help
repairs.py      what was probably meant by what cannot be read, spelled so that it can be typed
fields.py       fields of a value, and fields of these, as they are typed
completion.py   `aevae completion`: what a shell proposes after TAB
rehearsing.py   `aevae train --dry-run`
device.py       `--device`, before JAX is imported
programs.py     compiled programs that are kept from one start to the next
console.py      a line of progress, the next command to type
supervision.py  what a process that lost others says, and its exit code
endings.py      signals that end a command
terminal.py     what is printed, and errors in one line
"""

"""Values to text and back; nothing that is not listed can be built, and nothing is executed."""

from __future__ import annotations

import cmath
import dataclasses
import functools
import hashlib
import json
import math
import subprocess
import sys
import typing
import warnings
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

from aevae_jax import objectives, values
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.data import Data, DynamicBinarization, LastSplits, RandomSplits, Scale
from aevae_jax.models import VAE, Autoencoder, Model, TwoLevelVAE, likelihoods, priors
from aevae_jax.models.architectures import MLP, Architecture, Conv, Modules, ResidualConv
from aevae_jax.objectives.families import Loss
from aevae_jax.objectives.losses import ELBO, IWAE, LinearWarmup, ReconstructionError
from aevae_jax.runs import sweeps
from aevae_jax.runs.run import Run, Safeguard
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

RUNS = [
    Run(),
    Run(model=Autoencoder(latent=3), objective=ReconstructionError()),
    Run(
        data=Data("mnist:3.0.1", DynamicBinarization(), "some/where"),
        model=VAE(
            latent=40,
            network=MLP(hidden=(300, 300), gated=True, dtype="bfloat16"),
            likelihood=likelihoods.Bernoulli(),
            latent_prior=priors.VampPrior(components=7),
            log_scale_range=(-6.0, 2.0),
            event_shape=(28, 28, 1),
        ),
        objective=ELBO(beta=LinearWarmup(steps=100, start=0.25), free_bits=0.5, groups=4),
        optimizer=AdamW(learning_rate=5e-4, warmup=10, cosine=True, weight_decay=1e-2, clip_norm=1.0),
        batch_size=100,
        epochs=3,
        seed=2**32 - 1,
        ema=0.9995,
        patience=50,
    ),
    Run(
        model=VAE(
            network=ResidualConv(channels=(4, 8), blocks=2),
            likelihood=likelihoods.DiscretizedLogisticMixture(levels=17, components=3),
        ),
        objective=IWAE(num_samples=5, doubly_reparameterised=True),
    ),
    Run(model=VAE(network=Conv(), latent_prior=priors.GaussianMixture(4), likelihood=likelihoods.Categorical(17))),
]


# round trips


@pytest.mark.parametrize("run", RUNS, ids=range(len(RUNS)))
def test_runs_come_back_from_json(run):
    text = values.to_json(run)
    again = values.from_tree(Run, json.loads(text), "run.json")
    assert again == run
    assert hash(again) == hash(run)
    assert values.to_json(again) == text
    assert values.digest(again) == values.digest(run)


@pytest.mark.parametrize("run", RUNS, ids=range(len(RUNS)))
def test_runs_come_back_from_their_spelling(run):
    assert values.parse(Run, values.spell(run), "run") == run


@pytest.mark.parametrize("annotation", [Model, Loss, Architecture, likelihoods.Likelihood, priors.Prior])
def test_every_listed_type_with_defaults_comes_back(annotation):
    built = 0
    for cls in typing.get_args(annotation):
        if cls is not Modules:
            assert values.from_tree(annotation, json.loads(values.to_json(cls())), "value") == cls()
            assert values.parse(annotation, cls.__name__.lower(), "value") == cls()
            built += 1
    assert built >= 2


@given(
    latent=st.integers(1, 10**6),
    beta=st.floats(0, allow_infinity=False, width=32),
    hidden=st.lists(st.integers(1, 4096), max_size=4).map(tuple),
    gated=st.booleans(),
    name=st.text(max_size=20),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_fields_come_back_from_json_and_spelling(latent, beta, hidden, gated, name):
    run = Run(Data(name), VAE(latent, MLP(hidden, gated)), ELBO(beta))
    assert values.from_tree(Run, json.loads(values.to_json(run)), "run.json") == run
    if "\0" not in name and not any(0xD800 <= ord(c) < 0xE000 for c in name):  # these cannot be typed
        assert values.parse(Run, values.spell(run), "run") == run


def test_equal_values_have_equal_text():
    for one, other in [
        (ELBO(beta=1), ELBO(beta=1.0)),
        (VAE(log_scale_range=(-7, 3)), VAE()),
        (Run(objective=None), Run(objective=ELBO())),
    ]:
        assert one == other
        assert values.to_json(one) == values.to_json(other)
        assert values.digest(one) == values.digest(other)


def test_digest_is_the_same_in_another_interpreter_and_differs_between_values():
    code = "from aevae_jax import values, runs; print(values.digest(runs.Run(seed=3)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == values.digest(Run(seed=3))
    assert len({values.digest(run) for run in RUNS} | {values.digest(Run(seed=3))}) == len(RUNS) + 1


def my_loss(model, params, x, key, step): ...


@dataclasses.dataclass(frozen=True)
class Capacity:
    """What a user may write: an objective with numbers of its own, and perhaps with a function."""

    target: float = 1.0
    shape: object = None
    initial: object = my_loss


def closure(weight):
    def loss(model, params, x, key, step):
        return weight

    return loss


class Point(NamedTuple):
    x: float
    y: float


class Encoder(nn.Module):
    width: int
    activation: object = nn.relu


def test_objects_from_python_are_described_and_not_rebuilt():
    assert values.to_tree(object()) == {"custom": "object", "opaque": True}
    tree = json.loads(values.to_json(Run(objective=my_loss)))
    with pytest.raises(
        InputError,
        match=r"run\.json\.objective: got 'my_loss', which was given from Python, expected "
        r"a type that can be rebuilt from a file; pass your own object",
    ):
        values.from_tree(Run, tree, "run.json")
    with pytest.raises(InputError, match="got 'Capacity', which was given from Python"):
        values.from_tree(Loss, values.to_tree(Capacity()), "here")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Capacity(1.0), Capacity(25.0)),
        (Capacity(shape=(1, 2)), Capacity(shape=(1, 3))),
        (Capacity(shape=[Capacity(2.0)]), Capacity(shape=[Capacity(3.0)])),
        (Capacity(shape={"a": 1}), Capacity(shape={"a": 2})),
        (Capacity(shape=np.zeros(3)), Capacity(shape=np.ones(3))),
        (Capacity(shape=np.zeros(3)), Capacity(shape=np.zeros((3, 1)))),
        (Capacity(math.inf), Capacity(math.nan)),
        (Capacity(np.float32(1)), Capacity(np.float32(2))),
        (Encoder(3), Encoder(4)),
        (nn.Dense(3), nn.Dense(4)),
        (Capacity(), nn.Dense(3)),
        (lambda step: step, lambda step: step + 1),
        (closure(1.0), closure(2.0)),
        (closure(np.zeros(2)), closure(np.ones(2))),
        (functools.partial(my_loss, step=1), functools.partial(my_loss, step=2)),
        (lambda step, weight=1: step * weight, lambda step, weight=2: step * weight),
        (ELBO(beta=optax.linear_schedule(0, 1, 10)), ELBO(beta=optax.linear_schedule(0, 1, 20))),
        (optax.adam(1e-3), optax.adam(1e-4)),
        (Encoder(3, nn.gelu), Encoder(3, nn.tanh)),
        (abs, my_loss),
        (Capacity(shape=np.zeros(2)), Capacity(shape=np.zeros(2, np.int64))),  # the same bytes
        (functools.partial(my_loss, 1), functools.partial(my_loss, 2)),
        (functools.partial(my_loss, step=1), functools.partial(closure, step=1)),
        (math.sqrt, cmath.sqrt),
        (lambda step: sorted(step, key=lambda y: y + 1), lambda step: sorted(step, key=lambda y: y + 2)),
        (lambda step: step.real, lambda step: step.imag),
        (lambda step: step in {"a", "b"}, lambda step: step in {"a", "c"}),
        (Point(1, 2), Point(1, 3)),
    ],
)
def test_fields_of_ones_own_objects_are_written_and_compared(one, other):
    """Else a finished training with another setting would be taken for this one."""
    runs = [Run(objective=value) for value in (one, other)]
    trees = [json.loads(values.to_json(run)) for run in runs]
    assert trees[0] != trees[1]
    assert values.digest(runs[0]) != values.digest(runs[1])
    assert all(values.comparable(tree) for tree in trees)


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, np.array([None]), Capacity(shape=object()), [object()], closure(object()), "x".join],
    ids=range(7),
)
def test_what_cannot_be_written_makes_runs_not_comparable(value):
    assert not values.comparable(json.loads(values.to_json(Run(objective=value))))
    assert not values.comparable({"type": "Run", "objective": {"custom": "my_loss"}})  # as version 0.1 wrote it


def test_a_function_is_known_by_what_it_does_in_any_process(tmp_path, monkeypatch):
    """Comments and places do not matter; numbers of its module do."""

    def tree_of(text):
        (tmp_path / "losses.py").write_text(text)
        code = "import json, losses; from aevae_jax import values; print(json.dumps(values.to_tree(losses.loss)))"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    text = "BETA = 4.0\ndef loss(x):\n    return BETA * x if x in {'a', 'b', 'c'} else [y + 1 for y in x]\n"
    one = tree_of(text)
    assert values.comparable(one)
    assert tree_of(text) == tree_of(f"# a comment\n{text}") == one
    assert tree_of(text.replace("4.0", "5.0")) != one != tree_of(text.replace("y + 1", "y + 2"))


def test_a_function_is_known_by_the_defaults_of_its_arguments_too():
    def loss(beta):
        def scaled(x, *, beta=beta):
            return beta * x

        return scaled

    def positional(beta):
        return lambda x, beta=beta: beta * x

    for make in (loss, positional):
        assert values.to_tree(make(1.0)) == values.to_tree(make(1.0))
        assert values.to_tree(make(1.0)) != values.to_tree(make(2.0))


def test_traced_arrays_and_circles_are_not_comparable():
    circle = Capacity()
    object.__setattr__(circle, "shape", circle)
    assert not values.comparable(values.to_tree(circle))
    seen = []
    jax.make_jaxpr(lambda x: seen.append(values.to_tree(Capacity(x))))(1.0)
    assert not values.comparable(seen[0])


def test_every_run_of_listed_types_is_comparable():
    assert all(values.comparable(values.to_tree(run)) for run in RUNS)


def test_numbers_of_numpy_are_written_as_numbers():
    assert values.to_json(VAE(latent=np.int64(8))) == values.to_json(VAE(latent=8))
    assert values.to_json(ELBO(beta=np.float32(0.5))) == values.to_json(ELBO(beta=0.5))
    assert values.to_json(ELBO(beta=np.int32(1))) == values.to_json(ELBO())


def test_numbers_of_ones_own_objects_are_written_as_such():
    """But for those that JSON has not, and those that are no whole numbers stay floats."""
    found = [values.to_tree(Capacity(number))["fields"]["target"] for number in (2.0, 2, True, np.float32(0.5))]
    assert [(number, type(number)) for number in found] == [(2.0, float), (2, int), (True, bool), (0.5, float)]
    assert values.to_tree(-math.inf) == {"custom": "-inf", "fields": {}}


def test_only_a_tuple_may_be_empty():
    assert values.from_tree(tuple[int, ...], [], "here") == ()
    for annotation in (int, float, bool, str, Literal["a"], Model):
        with pytest.raises(InputError, match=r"^here: got \[\], expected "):
            values.from_tree(annotation, [], "here")


def test_minus_is_the_only_sign():
    assert values.parse(int, "-3", "--n") == -3
    for text in ("+3", "~3", "not 3", "-'3'", "--n"):
        with pytest.raises(InputError, match=r"^--n: got .*, expected an integer$"):
            values.parse(int, text, "--n")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_without_a_json_form_are_refused(number):
    with pytest.raises(InputError, match="ELBO: got a number that is not finite"):
        values.to_json(sweeps.place(ELBO(), ["beta"], [number]))  # which no check has seen


def test_the_text_of_a_value_is_that_of_version_0_1():
    """Records of old runs have its sha256."""
    text = '{"beta": 4.0, "free_bits": 0.0, "groups": 0, "sticking_the_landing": false, "type": "ELBO"}'
    assert values.to_json(ELBO(beta=4)) == text
    assert values.digest(ELBO(beta=4)) == hashlib.sha256(text.encode()).hexdigest()
    small = '{"channels": [4, 8], "dtype": "float32", "type": "Conv"}'
    assert values.to_json(Conv((4, 8), upsampling="repeat")) == small


def test_a_field_that_is_newer_than_a_record_means_what_was_meant_then():
    """And its default where nothing is said by somebody who types today."""
    recorded = {"type": "Conv", "channels": [4, 8], "dtype": "float32"}
    assert values.from_tree(Architecture, recorded, "run.json") == Conv((4, 8), upsampling="repeat")
    for text in ("Conv((4, 8))", "Conv(channels=(4, 8), dtype='float32')"):
        assert values.parse(Architecture, text, "--model") == Conv((4, 8), upsampling="sub_pixel")
    assert values.parse(Architecture, "ResidualConv", "--model") == ResidualConv(upsampling="sub_pixel")
    for value in (Conv(), Conv(upsampling="repeat"), ResidualConv(), ResidualConv(upsampling="repeat")):
        assert values.from_tree(Architecture, json.loads(values.to_json(value)), "run.json") == value
        assert values.parse(Architecture, values.spell(value), "--model") == value


def test_a_function_that_wraps_another_is_known_by_that():
    """And one that a name of its module calls is known by the name."""
    plain = closure(1.0)
    wrapped = functools.wraps(plain)(lambda *args: 2 * plain(*args))
    assert values.to_tree(wrapped) == values.to_tree(plain)


def test_numbers_of_json_have_64_bits_and_those_of_fields_32():
    for tree in (2**63 - 1, -(2**63) + 1, 0):
        assert values.from_tree(int, tree, "here") == tree
    for tree in (2**63, -(2**63)):
        with pytest.raises(InputError, match=f"^here: got {tree}, expected an integer$"):
            values.from_tree(int, tree, "here")
    largest = float(np.finfo(np.float32).max)
    for tree in (largest, -largest, 3, -0.5):
        found = values.from_tree(float, tree, "here")
        assert (found, type(found)) == (tree, float)
    for tree in (largest * 1.01, -largest * 1.01, "1", True, None):
        with pytest.raises(InputError, match=r"^here: got .*, expected a number$"):
            values.from_tree(float, tree, "here")
    with pytest.raises(InputError, match=r"^here\[1\]: got 'a', expected an integer$"):
        values.from_tree(tuple[int, ...], [1, "a"], "here")
    with pytest.raises(InputError, match=r"^here: got \[1, 2, 3\], expected \(a number, a number\)$"):
        values.from_tree(tuple[float, float], [1, 2, 3], "here")


# what is typed


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (Model, "vae", VAE()),
        (Model, "VAE(8)", VAE(latent=8)),
        (Model, " vae( 8, network = conv(channels=[4, 8]) ) ", VAE(latent=8, network=Conv((4, 8)))),
        (Model, "Autoencoder(network=MLP(hidden=()))", Autoencoder(network=MLP(hidden=()))),
        (Loss, "ELBO(beta=4)", ELBO(beta=4.0)),
        (Loss, "ELBO(LinearWarmup(100))", ELBO(beta=LinearWarmup(steps=100))),
        (objectives.Weight, "-1.5e-3", -1.5e-3),
        (objectives.Weight, "2", 2.0),
        (tuple[int, ...], "(1, 2)", (1, 2)),
        (tuple[int, ...], "()", ()),
        (tuple[float, float], "(-6, 2)", (-6.0, 2.0)),
        (Literal["float32", "bfloat16"], "'bfloat16'", "bfloat16"),
        (bool, "True", True),
        (int, "7", 7),
        (str, "'a b'", "a b"),
        (Data, "fashion_mnist", Data("fashion_mnist")),
        (Data, "mnist:3.0.1", Data("mnist:3.0.1")),
        (Data, "Data('digits', DynamicBinarization())", Data(preparation=DynamicBinarization())),
        (Data, "data", Data()),
    ],
)
def test_what_is_typed_is_read(annotation, text, expected):
    assert values.parse(annotation, text, "option") == expected


@pytest.mark.parametrize(
    ("annotation", "tree", "message"),
    [
        (
            Run,
            {"type": "Run", "sed": 3},
            r"Run: got the unknown field 'sed', expected Run\(data, .*; did you mean seed\?",
        ),
        (
            Model,
            {"type": "VAE", "network": {"type": "MLP", "width": 3}},
            r"network: MLP: got the unknown field 'width'",
        ),
        (Model, {"type": "GAN"}, r"here: got GAN, expected Autoencoder\(.*\) or VAE\("),
        (Model, {"type": "Run"}, "here: got Run, expected"),
        (Model, {"type": "VAE", "network": {"type": "VAE"}}, r"here\.network: got VAE, expected MLP\("),
        (Model, {"type": "builtins.eval"}, "got builtins.eval"),
        (Model, {"type": None}, "here: got None"),
        (Model, {"type": ["VAE"]}, r"here: got \['VAE'\]"),
        (Model, {}, "here: got None"),
        (Model, {"latent": 3}, "here: got None"),
        (Model, "VAE", "here: got 'VAE', expected Autoencoder"),
        (Model, None, "here: got None"),
        (Model, {"type": "VAE", "latent": "8"}, r"here\.latent: got '8', expected an integer"),
        (Model, {"type": "VAE", "latent": 8.0}, r"here\.latent: got 8\.0, expected an integer"),
        (Model, {"type": "VAE", "latent": True}, r"here\.latent: got True, expected an integer"),
        (Model, {"type": "VAE", "latent": None}, r"here\.latent: got None"),
        (Model, {"type": "VAE", "latent": [8]}, r"latent shape \(VAE\): got \(8,\), expected 8, or a shape such as"),
        (Model, {"type": "VAE", "latent": [8, [8]]}, r"here\.latent\[1\]: got \[8\], expected an integer"),
        (Model, {"type": "VAE", "latent": {"type": "int"}}, r"here\.latent: got int, expected an integer"),
        (Model, {"type": "VAE", "latent": 0}, "latent size .*got 0, expected at least 1"),
        (Model, {"type": "VAE", "latent": 10**30}, r"here\.latent: got 1000"),
        (Model, {"type": "VAE", "log_scale_range": [1.0]}, r"range: got \[1\.0\], expected \(a number, a number\)"),
        (Model, {"type": "VAE", "log_scale_range": [1.0, "x"]}, r"log_scale_range\[1\]: got 'x'"),
        (Model, {"type": "VAE", "positional": [8]}, "got the unknown field 'positional'"),
        (Model, {"type": "VAE", "positional": 8}, "got the unknown field 'positional'"),
        (Model, {"type": "VAE", "__class__": "os"}, "got the unknown field '__class__'"),
        (Model, {"type": "VAE", "network": {"type": "Modules"}}, "Modules: got no 'encoder_module'"),
        (Model, {"type": "VAE", "network": {"type": "Modules", "encoder_module": 1, "decoder_module": 2}}, "er_module"),
        (Architecture, {"type": "MLP", "dtype": "float64"}, r"dtype: got 'float64', expected 'float32' or 'bfloat16'"),
        (Architecture, {"type": "MLP", "gated": 1}, r"here\.gated: got 1, expected True or False"),
        (Architecture, {"type": "MLP", "hidden": [-1]}, "MLP hidden"),
        (Loss, {"type": "ELBO", "beta": "x"}, r"here\.beta: got 'x', expected a number or LinearWarmup\("),
        (Loss, {"type": "ELBO", "beta": math.nan}, r"here\.beta: got nan"),
        (Loss, {"type": "ELBO", "beta": math.inf}, r"here\.beta: got inf"),
        (Loss, {"type": "ELBO", "beta": 10**400}, r"here\.beta: got 1000"),
        (Loss, {"type": "ELBO", "beta": {"type": "LinearWarmup"}}, "LinearWarmup: got no 'steps'"),
        (Loss, {"custom": "f"}, "here: got 'f', which was given from Python"),
        (Run, {"type": "Run", "seed": -1}, "seed: got -1"),
        (Run, {"type": "Run", "seed": 2**32}, "seed: got 4294967296, expected 0 to 4294967295"),
        (Run, {"type": "Run", "batch_size": -1}, "batch_size: got -1"),
        (Run, {"type": "Run", "model": {"type": "Autoencoder"}, "objective": {"type": "ELBO"}}, "objective of an A"),
    ],
)
def test_trees_that_no_value_has_are_refused(annotation, tree, message):
    with pytest.raises(InputError, match=message):
        values.from_tree(annotation, tree, "here")


HOSTILE = [
    "__import__('os').system('touch HERE')",
    "open('HERE', 'w')",
    "exec(\"open('HERE', 'w')\")",
    "VAE(latent=__import__('os').system('touch HERE'))",
    "VAE(latent=(lambda: open('HERE', 'w'))())",
    "[open('HERE', 'w') for _ in (1,)]",
    "VAE(**{'latent': open('HERE', 'w')})",
    "VAE(*[open('HERE', 'w')])",
    'f\'{open("HERE", "w")}\'',
    "VAE().__class__",
    "VAE.__init__.__globals__",
    "(x := open('HERE', 'w'))",
    "VAE(latent=2 ** 9 ** 9 ** 9)",
    "VAE(latent=1 if open('HERE', 'w') else 2)",
    "VAE(latent=8, latent=9)",
    "VAE(8, latent=9)",
    "VAE(1, 2, 3, 4, 5, 6, 7, 8)",
    "VAE(type='Autoencoder')",
    "VAE(custom='x')",
    "VAE(positional=3)",
    "VAE(latent=8); import os",
    "import os",
    "",
    "   ",
    "VAE(",
    ")",
    "VAE\0",
    "\ud800",
    "1j",
    "...",
    "b'VAE'",
    "None",
    "-VAE",
    "@VAE",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_refused_and_not_executed(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    loaded = set(sys.modules)
    with pytest.raises(InputError) as caught:
        values.parse(Model, text, "--model")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())
    assert set(sys.modules) == loaded


@pytest.mark.parametrize("depth", [50, 150, 900, 3000, 100_000])
@pytest.mark.parametrize(
    ("start", "middle", "end"),
    [
        ("(", "1", ")"),
        ("[", "", "]"),
        ("-", "1", ""),
        ("VAE(", "", ")"),
        ("1+", "1", ""),
        ("not ", "1", ""),
        ("", "a", ".b"),
        ("", "a", "()"),
        ("lambda:", "1", ""),
        ("{1:", "1", "}"),
    ],
)
def test_deeply_nested_text_is_refused(depth, start, middle, end):
    text = start * depth + middle + end * depth
    if start == "(":
        text = text.replace("1", "1,")
    with pytest.raises(InputError) as caught:
        values.parse(Model, text, "--model")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("depth", [50, 900, 980, 20_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"type": "VAE", "latent": ', "}"), ('{"custom": ', "}")])
def test_deeply_nested_trees_are_refused(depth, start, end):
    tree = 1
    for _ in range(depth):
        tree = (
            [tree] if start == "[" else {**json.loads(f"{start}1{end}"), list(json.loads(f"{start}1{end}"))[-1]: tree}
        )
    for annotation in (Model, int, tuple[int, ...]):
        with pytest.raises(InputError) as caught:
            values.from_tree(annotation, tree, "here")
        assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "text",
    [
        "a" * 2_000_000,
        "1" * 100_000,
        "0x" + "f" * 100_000,
        "'" + "b" * 1_000_000 + "'",
        "VAE(" + "1," * 100_000 + ")",
        "é" * 500_000,
    ],
    ids=range(6),
)
def test_huge_text_is_refused_in_few_words(text):
    for annotation in (Model, objectives.Weight):
        with pytest.raises(InputError) as caught:
            values.parse(annotation, text, "--model")
        assert len(str(caught.value)) < 2000


# words


def test_signature_names_every_field_with_its_default():
    assert values.signature(AdamW) == (
        "AdamW(learning_rate=0.001, warmup=0, cosine=False, weight_decay=0.0, clip_norm=0.0)"
    )
    assert values.signature(LinearWarmup) == "LinearWarmup(steps, start=0.0, end=1.0)"
    for cls in (VAE, Run, ELBO):
        assert all(f"{field.name}=" in values.signature(cls) for field in dataclasses.fields(cls))


def test_spelling_leaves_out_defaults():
    assert values.spell(VAE()) == "VAE()"
    assert values.spell(VAE(latent=3, network=Conv())) == "VAE(latent=3, network=Conv())"
    assert values.spell(ELBO(beta=LinearWarmup(5))) == "ELBO(beta=LinearWarmup(steps=5))"
    assert values.spell(Scale()) == "Scale()"


DEFAULTS = [
    "MLP(hidden=(256, 256), gated=False, dtype='float32')",
    "Conv(channels=(32, 64), dtype='float32', upsampling='sub_pixel', conditioning='maps')",
    "ResidualConv(channels=(32, 64), blocks=1, dtype='float32', upsampling='sub_pixel', conditioning='maps')",
    "Mixer(patch=4, width=64, blocks=2, dtype='float32')",
    "Normal(scale=1.0)",
    "NormalElementScale()",
    "NormalSharedScale(initial_scale=0.25)",
    "NormalOptimalScale()",
    "Bernoulli()",
    "ContinuousBernoulli()",
    "Categorical(levels=256)",
    "DiscretizedLogistic(levels=256)",
    "DiscretizedLogisticMixture(levels=256, components=5)",
    "InterlacedLogisticMixture(levels=256, components=3, features=32)",
    "Tabular(columns=(), counts=())",
    "FromData()",
    "StandardNormal()",
    "GaussianMixture(components=10)",
    "FullGaussianMixture(components=10)",
    "VampPrior(components=500)",
    "RealNVP(layers=6, hidden=(64,))",
    "MAF(layers=4, hidden=(64,))",
    "TwoStage(hidden=(256, 256))",
    "FromData()",
    "Autoencoder(latent=16, network=MLP(), likelihood=Normal(), latent_prior=StandardNormal(), event_shape=(), "
    "code=Identity())",
    "VAE(latent=16, network=MLP(), likelihood=FromData(), latent_prior=FromData(), "
    "log_scale_range=(-7.0, 3.0), event_shape=(), posterior=DiagonalNormal())",
    "TwoLevelVAE(latent=16, network=MLP(), likelihood=FromData(), latent_prior=FromData(), "
    "log_scale_range=(-7.0, 3.0), event_shape=())",
    "CompressiveAutoencoder(latent=64, network=MLP(), likelihood=Normal(scale=0.1), levels=(), step=0.25, "
    "components=3, event_shape=())",
    "ConditionalVAE(latent=16, network=MLP(), likelihood=FromData(), latent_prior=StandardNormal(), "
    "log_scale_range=(-7.0, 3.0), classes=0, vector=0, drop=0.0, learned_prior=False, event_shape=(), "
    "posterior=DiagonalNormal())",
    "ConditionalAutoencoder(latent=16, network=MLP(), likelihood=Normal(), latent_prior=StandardNormal(), "
    "classes=0, vector=0, drop=0.0, event_shape=())",
    "SemiSupervisedVAE(latent=16, network=MLP(), likelihood=FromData(), latent_prior=StandardNormal(), "
    "log_scale_range=(-7.0, 3.0), classes=0, event_shape=(), posterior=DiagonalNormal())",
    "VQVAE(latent=(16, 4), network=MLP(), likelihood=FromData(), quantizer=Codebook(), latent_prior=UniformCodes(), "
    "event_shape=())",
    "CategoricalVAE(latent=(16, 8), network=MLP(), likelihood=FromData(), latent_prior=UniformCodes(), event_shape=())",
    "ReconstructionError()",
    "ELBO(beta=1.0, free_bits=0.0, groups=0, sticking_the_landing=False, rate='whole')",
    "IWAE(num_samples=50, doubly_reparameterised=False)",
    "Denoising(corruption=GaussianNoise(), objective=ReconstructionError())",
    "Sparse(penalty=L1(), weight=0.1, objective=ReconstructionError())",
    "Contractive(weight=0.1, objective=ReconstructionError(), samples=0)",
    "Capacity(capacity=LinearWarmup(steps=10000, end=25.0), gamma=100.0)",
    "BetaTCVAE(total_correlation=6.0, mutual_information=1.0, dimension_wise_kl=1.0, sampling='stratified', "
    "num_examples=0)",
    "FactorVAE(total_correlation=10.0, discriminator=Discriminator())",
    "DIPVAE(version='II', off_diagonal=10.0, diagonal=10.0)",
    "MMD(weight=100.0, rate_weight=0.0, kernel='inverse_multiquadratic', bandwidth=1.0)",
    "AAE(weight=1.0, discriminator=Discriminator())",
    "PriorLikelihood()",
    "VQ(commitment=0.25)",
    "GumbelSoftmax(temperature=0.67, straight_through=False)",
    "SemiSupervised(classification=50.0)",
]
"""What help says, and, but for what is `FromData`, what runs of an earlier version were trained with where nothing else
was typed and the record does not lack the field."""


def test_defaults_are_those_of_version_0_1_where_they_are_not_left_to_the_data():
    kinds = (Architecture, likelihoods.Likelihood, priors.Prior, Model, Loss)
    assert [values.signature(cls) for kind in kinds for cls in typing.get_args(kind) if cls is not Modules] == DEFAULTS


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "True or False"),
        (int, "an integer"),
        (float, "a number"),
        (str, "text"),
        (tuple[int, ...], "(an integer, ...)"),
        (tuple[float, str], "(a number, text)"),
        (Literal["a", 3], "'a' or 3"),
        (int | None, "an integer"),
        (objectives.Weight, "a number or LinearWarmup(...) or Cyclical(...)"),
        (Architecture, "MLP(...) or Conv(...) or ResidualConv(...) or Mixer(...) or Modules(...)"),
        (
            likelihoods.Likelihood,
            "Normal(...) or NormalElementScale(...) or NormalSharedScale(...) or another that --help lists",
        ),
        (priors.StandardNormal | priors.GaussianMixture, "StandardNormal() or GaussianMixture(components=10)"),
        (object, "an object given from Python"),
    ],
    ids=range(13),
)
def test_what_is_accepted_is_said_in_words(annotation, words):
    assert values.describe(annotation) == words


def test_vocabulary_goes_by_the_fields_that_take_each():
    listed = values.vocabulary(Model)
    assert list(listed)[:2] == ["", "network"]
    families = [cls.__name__ for cls in typing.get_args(Model)]
    assert [text.partition("(")[0] for text in listed[""]] == families
    assert [text.partition("(")[0] for text in listed["network"]] == ["MLP", "Conv", "ResidualConv", "Mixer"]
    of_codes = ["UniformCodes()", "MarginalCodes()", "CausalTransformer(width=64, layers=2, heads=4)"]
    assert listed["latent_prior"][-5:] == ["TwoStage(hidden=(256, 256))", "FromData()", *of_codes]
    assert values.vocabulary(Loss)["beta"] == [
        "LinearWarmup(steps, start=0.0, end=1.0)",
        "Cyclical(steps, cycles=4, rise=0.5, start=0.0, end=1.0)",
    ]


def test_the_longest_text_that_is_read_has_ten_thousand_characters():
    text = f"ELBO(beta=4{' ' * (10_000 - 12)})"
    assert len(text) == 10_000
    assert values.parse(Loss, f"  {text}\n", "--objective") == ELBO(beta=4.0)
    with pytest.raises(InputError, match=r"^--objective: got 10,001 characters, expected at most 10,000$"):
        values.parse(Loss, text.replace("4", "4 "), "--objective")


def test_python_does_not_say_what_it_thinks_of_a_text():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for text in ("1if 2 else 3", "'\\d'", "(1)(2)"):
            with pytest.raises(InputError):
                values.parse(Model, text, "--model")
    assert caught == []


def test_arguments_without_names_are_those_of_the_fields_in_their_order():
    assert values.parse(Model, "VAE(8, Conv((4,)), Normal(0.5))", "--model") == VAE(
        8, Conv((4,)), likelihoods.Normal(0.5)
    )
    with pytest.raises(InputError, match=r"^--model\.network: MLP: got too many arguments, expected MLP\(hidden="):
        values.parse(Model, "VAE(network=MLP((3,), True, 'float32', 5))", "--model")
    with pytest.raises(InputError, match=r"^--model: VAE: got too many arguments"):
        values.parse(Model, "VAE(8, latent=9)", "--model")


def test_vocabulary_lists_what_can_be_typed_and_nothing_else():
    listed = values.vocabulary(Run)
    everything = " ".join(signature for signatures in listed.values() for signature in signatures)
    names = [
        "Run",
        "Data",
        "DynamicBinarization",
        "VAE",
        "Autoencoder",
        "ResidualConv",
        "VampPrior",
        "IWAE",
        "LinearWarmup",
    ]
    assert all(f"{name}(" in everything for name in names)
    assert "Modules" not in everything
    assert set(listed) >= {"", "data", "model", "objective", "optimizer", "network", "likelihood"}


# mistakes


@pytest.mark.parametrize(
    ("annotation", "text", "message"),
    [
        (Model, "VAE(latent=8", r"got 'VAE\(latent=8', which lacks \) at the end, expected"),
        (Model, "VAE(log_scale_range=(1, 2", r"which lacks \)\) at the end"),
        (Model, "VAE(latent=8))", r"whose \) closes nothing"),
        (Model, "VAE(latent=8]", "whose ] closes nothing"),
        (Data, "Data('it's.csv')", "in which the quote ' is not closed"),
        (Data, "Data('x'", r"which lacks \) at the end"),
        (Model, "VEA", r"got VEA, expected .*; did you mean VAE\(latent=16\)\?"),
        (Model, "VEA(8)", r"did you mean VAE\(latent=16\)\?"),
        (Model, "beta-vae", r"got 'beta-vae', expected .*; did you mean VAE\("),
        (Model, "VAE latent=8", r"got 'VAE latent=8', expected .*; did you mean VAE\(latent=16\)\?"),
        (Model, "VAE(likelihood=Bernouli())", r"likelihood: got Bernouli, .*; did you mean Bernoulli\?"),
        (Model, "VAE(network=Convolution)", r"did you mean Conv\(channels=\(32, 64\)\)\?"),
        (Model, "VAE(latent_dim=8)", r"VAE: got the unknown field 'latent_dim', .*; did you mean latent\?"),
        (Model, "GAN", r"got GAN, expected Autoencoder\(\.\.\.\) or VAE\(.* or another that --help lists$"),
        (Model, "2 ** 3", r"got '2 \*\* 3', expected"),
        (AdamW, "AdamW(lr=.1)", r"AdamW: got the unknown field 'lr', .*; did you mean learning_rate\?"),
        (AdamW, "AdamW(wd=.1)", r"did you mean weight_decay\?"),
        (AdamW, "AdamW(clip=1)", r"did you mean clip_norm\?"),
        (AdamW, "AdamW(learningrate=.1)", r"did you mean learning_rate\?"),
        (AdamW, "AdamW(eps=.1)", r"got the unknown field 'eps', expected AdamW\(.*\)$"),
        (Loss, "ELBO(Linear)", r"LinearWarmup: got no 'steps', expected LinearWarmup\(steps, start=0.0, end=1.0\)$"),
        (Loss, "VAE" * 3000, "got VAEVAE"),
        (Loss, "ELBO(" + "x" * 3000 + "=3)", "unknown field 'xxx"),
        (Loss, "x" * 10_001, "got 10,001 characters, expected at most 10,000"),
        (Loss, "ELBO(" * 2000, "which lacks "),
    ],
)
def test_a_mistake_is_named_in_few_words(annotation, text, message):
    with pytest.raises(InputError, match=message) as caught:
        values.parse(annotation, text, "--option")
    assert len(str(caught.value)) <= 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "table (1).csv",
        "2024.csv",
        "it's.csv",
        "x[1].csv",
        "a, b.csv",
        "-1.csv",
        "None",
        "λ.npy",
        "1e3",
        "my file",
        "a=b.npy",
        "data.csv",
        "f(x).csv",
    ],
)
def test_a_name_need_not_be_quoted(name):
    """Files are called all sorts of things, and what is typed after `--data` is nearly always one."""
    assert values.parse(Data, name, "--data") == Data(name)


@pytest.mark.parametrize(
    "name", ["", "  ", "a\nb.csv", "a\x1b[31m.csv", "a\0", "a\u202eb", "'a.csv'", '"a"', "a(1)", "Data(", "data ("]
)
def test_what_is_no_name_does_not_become_one(name):
    """Nothing, what steers a terminal, quoted text and calls."""
    with pytest.raises(InputError, match=r"^--data: got "):
        values.parse(Data, name, "--data")


@pytest.mark.parametrize(
    "build",
    [
        lambda: objectives.LinearWarmup(2**31),
        lambda: objectives.LinearWarmup(10**400),
        lambda: objectives.LinearWarmup(1.5),
        lambda: objectives.LinearWarmup(3, start=1e300),
        lambda: objectives.LinearWarmup(3, end=math.nan),
        lambda: IWAE(2**31),
        lambda: IWAE("3"),
        lambda: IWAE(True),
        lambda: IWAE(None),
        lambda: ELBO(free_bits=math.nan),
        lambda: ELBO(free_bits=1e300),
        lambda: ELBO(groups=1.0),
        lambda: ELBO(groups=10**30),
        lambda: VAE(latent=2**31),
        lambda: VAE(latent=10**400),
        lambda: VAE(latent=8.0),
        lambda: VAE(latent="8"),
        lambda: VAE(event_shape=(3, "a")),
        lambda: VAE(event_shape=(3, 10**12)),
        lambda: VAE(event_shape=3),
        lambda: VAE(log_scale_range=3),
        lambda: VAE(log_scale_range=(1, "b")),
        lambda: VAE(log_scale_range=(-math.inf, 0.0)),
        lambda: Conv((10**10,)),
        lambda: VAE(log_scale_range=(-1e300, 0.0)),
        lambda: VAE(log_scale_range=(0.0, 1e4)),
        lambda: Conv(3),
        lambda: MLP(("a",)),
        lambda: MLP((2.5,)),
        lambda: ResidualConv(blocks=10**30),
        lambda: likelihoods.Normal(1e-300),
        lambda: likelihoods.Normal("a"),
        lambda: likelihoods.NormalSharedScale(math.nan),
        lambda: likelihoods.NormalSharedScale("a"),
        lambda: likelihoods.Categorical(2**17),
        lambda: likelihoods.DiscretizedLogistic(2.5),
        lambda: likelihoods.DiscretizedLogisticMixture(256, 10**10),
        lambda: likelihoods.Tabular((10**10,)),
        lambda: likelihoods.Tabular(3),
        lambda: priors.VampPrior(2**40),
        lambda: priors.GaussianMixture("a"),
        lambda: priors.FullGaussianMixture(2**31),
        lambda: AdamW(1e300),
        lambda: AdamW(1e-300),
        lambda: AdamW("a"),
        lambda: AdamW(warmup=2**31),
        lambda: AdamW(warmup=1.5),
        lambda: AdamW(clip_norm=1e300),
        lambda: AdamW(weight_decay=math.nan),
        lambda: Run(epochs=2**31),
        lambda: Run(batch_size=10**30),
        lambda: Run(epochs=1.5),
        lambda: Run(seed="a"),
        lambda: Run(seed=1.5),
        lambda: Run(patience=2**40),
        lambda: Run(ema="a"),
        lambda: Safeguard(max_norm="a"),
        lambda: Safeguard(in_a_row=2**31),
        lambda: Safeguard(rollbacks=2**31),
        lambda: Saving(seconds="a"),
        lambda: Saving(last=2**31),
        lambda: Saving(steps=1.5),
        lambda: Data("x", size=(10**10, 3)),
        lambda: Data("x", size=3),
        lambda: RandomSplits(validation="a"),
        lambda: RandomSplits(seed=1.5),
        lambda: LastSplits(test=math.nan),
    ],
    ids=range(67),
)
def test_numbers_that_no_field_can_hold_are_refused(build):
    with pytest.raises(InputError, match=r"got .*, expected") as caught:
        build()
    assert len(str(caught.value)) <= 200


@pytest.mark.parametrize(
    "build",
    [
        objectives.LinearWarmup,
        IWAE,
        lambda n: ELBO(groups=n),
        VAE,
        Autoencoder,
        lambda n: TwoLevelVAE(n + 1 if n == 1 else n),
        lambda n: VAE(event_shape=(n, n)),
        lambda n: MLP((n,)),
        lambda n: Conv((n,)),
        lambda n: ResidualConv((n,), n),
        priors.GaussianMixture,
        priors.FullGaussianMixture,
        priors.VampPrior,
        lambda n: likelihoods.DiscretizedLogisticMixture(2, n),
    ],
    ids=range(14),
)
def test_one_and_the_largest_number_of_32_bits_are_allowed(build):
    """A linear network and a mixture of one are what others are compared with."""
    assert build(1) != build(2**31 - 1)


GARBAGE = [
    "VAE",
    "AdamW",
    "ELBO",
    "IWAE",
    "LinearWarmup",
    "Conv",
    "MLP",
    "Data",
    "Run",
    "Saving",
    "latent",
    "beta",
    "hidden",
    "steps",
    "=",
    "==",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    ":",
    ";",
    "'",
    '"',
    "'''",
    "\\",
    "\n",
    "\r",
    "\t",
    "\0",
    "#",
    "@",
    "-",
    "+",
    "*",
    "**",
    "~",
    "!",
    "lambda",
    "if",
    "None",
    "True",
    "not ",
    "f'",
    "b'",
    "rb'",
    "\\N{",
    "\\x",
    "0x",
    "1e",
    "1_",
    "0777",
    "1j",
    "...",
    "9" * 40,
    "9" * 5000,
    "1e999",
    "-1",
    "0",
    "0.5",
    "nan",
    "é",
    "Ⅷ",
    "\u202e",
    "\ud800",
    "😀",
    "\ufeff",
    " ",
    "aevae",
    "type",
    "custom",
    "positional",
    "__class__",
    "await ",
    "yield ",
    ":=",
    "<",
    ">>",
    "%",
    "$",
]


def test_garbage_is_refused_in_one_line():
    """Texts of pieces that a parser may trip over are a value, or one short line, and nothing else."""
    random, refused = np.random.default_rng(0), []
    annotations = (Model, Loss, AdamW, Data, Saving, Run, Safeguard, int, float, bool, tuple[int, ...])
    for trial in range(3_000):
        text = "".join(GARBAGE[i] for i in random.integers(len(GARBAGE), size=random.integers(1, 9)))
        text = f"VAE(latent={text})" if trial % 3 == 0 else text
        try:
            values.parse(annotations[trial % len(annotations)], text, "--option")
        except InputError as error:
            refused.append(str(error))
    assert all(len(message) <= 200 and message.isprintable() for message in refused)
    assert len(refused) > 2_400


HOSTILE_TREES = [
    None,
    True,
    0,
    -1,
    2**31,
    10**30,
    10**400,
    1e308,
    math.nan,
    math.inf,
    1e-320,
    "",
    "VAE",
    "a" * 1000,
    "\0",
    "\ud800",
    [],
    [1],
    [None],
    [[]],
    [1] * 1000,
    {},
    {"type": None},
    {"type": []},
    {"type": "VAE"},
    {"type": "LinearWarmup"},
    {"type": "LinearWarmup", "steps": 10**30},
    {"type": "MLP", "hidden": [10**20]},
    {"type": "Data", "size": [1, 2]},
    {"type": "Modules", "encoder_module": None, "decoder_module": None},
    {"custom": "f"},
    {"positional": [1]},
]


def places(tree):
    """Every list or object in a tree with each of its keys."""
    for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(item, dict | list):
            yield from places(item)


def test_records_with_one_hostile_entry_are_refused_in_one_line():
    """Or read, and then written, hashed and spelled like any other."""
    random, refused = np.random.default_rng(0), []
    texts = [values.to_json(run) for run in RUNS]
    for trial in range(600):
        tree = json.loads(texts[trial % len(texts)])
        found = list(places(tree))
        inside, key = found[random.integers(len(found))]
        inside["x" if isinstance(inside, dict) and trial % 10 == 0 else key] = HOSTILE_TREES[trial % len(HOSTILE_TREES)]
        try:
            run = values.from_tree(Run, tree, "run.json")
            assert hash(values.parse(Run, values.spell(run), "run")) == hash(run) or "\0" in repr(run)
        except InputError as error:
            refused.append(str(error))
    assert all(message.isprintable() for message in refused)
    assert len(refused) > 450


def test_how_a_tuple_of_one_is_typed_is_said():
    for text, cure in (("(256)", r"\(256,\)"), ("256", r"\(256,\)")):
        with pytest.raises(InputError, match=rf"hidden: got 256, expected \(an integer, ...\); of one: {cure}$"):
            values.parse(MLP, f"MLP(hidden={text})", "network")

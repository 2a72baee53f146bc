"""Names of modules as version 0.1 had them lead to what they were, with a warning; nothing else is caught."""

from __future__ import annotations

import importlib
import json
import sys
import warnings

import pytest

import aevae_jax
from aevae_jax import figures, renamed, values

OLD = {
    "annealing": ("evaluation.ais", "Annealed"),
    "architectures": ("models.architectures", "ResidualConv"),
    "array_files": ("checkpoints.array_files", "not_finite"),
    "bounds": ("objectives.bounds", "importance_weighted_bound"),
    "checkup": ("evaluation.collapse", "Diagnosis"),
    "compound": ("distributions.joint", "Chained"),
    "environment": ("runs.provenance", "make_deterministic"),
    "features": ("evaluation.classifiers", "train_ensemble"),
    "files": ("data.files", "read_codes"),
    "fitting": ("runs.fitting", "fit_seeds"),
    "generation": ("models.generation", "interpolate"),
    "importance": ("evaluation.importance", "bits_per_dim"),
    "latents": ("evaluation.latents", "Latents"),
    "likelihoods": ("models.likelihoods", "NormalSharedScale"),
    "locks": ("checkpoints.locks", "Lock"),
    "loops": ("training.loops", "has_convolution"),
    "networks": ("models.networks", "GatedDense"),
    "optimizers": ("training.optimizers", "AdamW"),
    "parallel": ("training.devices", "everywhere"),
    "plans": ("runs.resolution", "plan_of"),
    "priors": ("models.priors", "VampPrior"),
    "protocols": ("evaluation.estimates", "Protocol"),
    "quality": ("evaluation.image_quality", "SampleQuality"),
    "records": ("runs.records", "digest_of"),
    "reproduction": ("runs.reproduction", "Verdict"),
    "signals": ("checkpoints.signals", "Interrupted"),
    "statistics": ("evaluation.statistics", "frechet_distance"),
    "tabular": ("distributions.tabular", "Tabular"),
    "trainer": ("runs.trainer", "Trainer"),
    "weights": ("runs.weights", "params_digest"),
}
"""Where each stands now, and something that version 0.1 had in it."""


def forget() -> None:
    """As in a fresh interpreter: no old name has been imported."""
    for name in OLD:
        sys.modules.pop(f"aevae_jax.{name}", None)
        vars(aevae_jax).pop(name, None)


@pytest.fixture(autouse=True)
def _none_was_imported_and_none_is_left():
    forget()
    yield
    forget()


def test_none_is_forgotten():
    assert set(renamed.MODULES) == set(OLD)


EXPORTED = """
ELBO IWAE Adam Autoencoder Data Dataset Distribution InputError LatentModel Objective ReconstructionError Run
Safeguard Saving TrainState TwoLevelVAE VAE annealing architectures bounds checkpoints checkup compound data
distributions elbo evaluate evaluation features figures fit fit_seeds fitting from_arrays generation
importance importance_weighted_bound init_state interpolate keys latents likelihoods load_run log_weights
make_train_step models networks objectives optimizers per_example priors protocols quality reconstruct records
runs sample statistics tabular train_epoch training traverse types
"""


@pytest.mark.filterwarnings("ignore:.*its old name goes:DeprecationWarning")
def test_all_that_version_0_1_exported_is_there():
    assert [name for name in EXPORTED.split() if getattr(aevae_jax, name, None) is None] == []


@pytest.mark.parametrize("name", OLD)
def test_an_old_name_is_the_module_that_has_its_contents_now(name):
    now, content = OLD[name]
    new = importlib.import_module(f"aevae_jax.{now}")
    spec, path = new.__spec__, new.__file__
    said = rf"^aevae_jax\.{name} is aevae_jax\.{now} now: its old name goes with version 0\.3$"
    with pytest.warns(DeprecationWarning, match=said) as caught:
        old = importlib.import_module(f"aevae_jax.{name}")
    assert len(caught) == 1
    assert old is new is sys.modules[f"aevae_jax.{name}"] is sys.modules[f"aevae_jax.{now}"]
    assert getattr(old, content).__module__ == f"aevae_jax.{now}"
    assert new.__spec__ is spec
    assert (spec.name, new.__name__, new.__file__) == (f"aevae_jax.{now}", f"aevae_jax.{now}", path)
    assert importlib.import_module(f"aevae_jax.{name}") is new  # without another warning


def test_each_way_to_import_one_works_and_warns_the_line_that_does_so():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import aevae_jax.annealing
        from aevae_jax.fitting import fit

        attribute = aevae_jax.compound
        from aevae_jax import checkup
    assert aevae_jax.annealing is importlib.import_module("aevae_jax.evaluation.ais")
    assert fit is aevae_jax.fit
    assert attribute.Mixture is aevae_jax.distributions.Mixture
    assert checkup.Finding is aevae_jax.collapse.Finding
    assert [warning.category for warning in caught] == [DeprecationWarning] * 4
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("module", renamed.NAMES)
@pytest.mark.filterwarnings("ignore:.*its old name goes:DeprecationWarning")
def test_what_a_module_called_otherwise_is_in_it_by_both_names(module):
    old = {now: old for old, now in renamed.MODULES.items()}
    found = importlib.import_module(f"aevae_jax.{old[module]}" if module in old else f"aevae_jax.{module}".rstrip("."))
    for name, now in renamed.NAMES[module].items():
        assert getattr(found, name) is getattr(found, now)


def test_old_names_of_values_warn_the_line_that_uses_them():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from aevae_jax import Adam
        from aevae_jax.objectives import Linear

        sheet = figures.contact_sheet
        safeguard = aevae_jax.Safeguard(detours=5)
    assert (Adam, Linear) == (aevae_jax.AdamW, aevae_jax.objectives.LinearWarmup)
    assert sheet is figures.image_grid
    assert safeguard == aevae_jax.Safeguard(rollbacks=5)
    assert list(dict.fromkeys(str(warning.message).split(":")[0] for warning in caught)) == [
        "aevae_jax.Adam is AdamW now",
        "aevae_jax.objectives.Linear is LinearWarmup now",
        "aevae_jax.figures.contact_sheet is image_grid now",
        "Safeguard(detours=...) is rollbacks=... now",
    ]
    assert {warning.filename for warning in caught} == {__file__}
    with pytest.raises(AttributeError, match=r"module 'aevae_jax.figures' has no attribute 'contact_sheets'"):
        _ = figures.contact_sheets
    with pytest.raises(AttributeError, match="lineal"):
        _ = aevae_jax.objectives.lineal


def test_values_are_read_by_their_old_names_typed_or_recorded():
    run = aevae_jax.Run(
        objective=aevae_jax.ELBO(beta=aevae_jax.objectives.LinearWarmup(100)),
        optimizer=aevae_jax.AdamW(2e-3),
        safeguard=aevae_jax.Safeguard(rollbacks=1),
    )
    text = values.to_json(run)
    old = text.replace('"LinearWarmup"', '"Linear"').replace('"AdamW"', '"Adam"').replace('"rollbacks"', '"detours"')
    assert old.count('"Linear"') == old.count('"Adam"') == old.count('"detours"') == 1
    assert values.from_tree(aevae_jax.Run, json.loads(old), "run.json") == run
    typed = {
        "ELBO(beta=Linear(100))": run.objective,
        "Adam(2e-3)": run.optimizer,
        "Safeguard(detours=1)": run.safeguard,
    }
    for text, value in typed.items():
        assert values.parse(type(value), text, "--option") == value


def test_what_has_kept_its_name_is_found_without_a_warning():
    for name in ("importance", "priors", "records", "keys", "VAE"):
        assert getattr(aevae_jax, name) is not None


def test_other_names_are_not_found():
    finder = renamed.Finder()
    assert finder.find_spec("aevae_jax.annealing", None) is not None
    for name in ("annealing", "scipy.annealing", "aevae_jax.evaluation.annealing", "aevae_jax.no_such", "aevae_jax"):
        assert finder.find_spec(name, None) is None
    with pytest.raises(ModuleNotFoundError, match=r"aevae_jax\.no_such"):
        importlib.import_module("aevae_jax.no_such")
    with pytest.raises(AttributeError, match="no_such"):
        _ = aevae_jax.no_such


def test_finding_is_installed_once_and_after_all_other_ways():
    renamed.install()
    finders = [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path]
    assert finders.count("Finder") == 1
    assert finders.index("Finder") > finders.index("PathFinder")

from . import provenance as provenance, records as records, weights as weights
from .fitted import Fitted as Fitted, load_run as load_run
from .fitting import fit as fit, fit_members as fit_members, fit_seeds as fit_seeds, fit_sweep as fit_sweep
from .reproduction import replay as replay, reproduce as reproduce
from .resolution import ResolvedRun as ResolvedRun, resolve as resolve
from .run import Run as Run, Safeguard as Safeguard

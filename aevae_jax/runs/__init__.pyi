from . import provenance as provenance, records as records, weights as weights
from .fitting import Fitted as Fitted, fit as fit, fit_seeds as fit_seeds, fit_sweep as fit_sweep, load_run as load_run
from .reproduction import replay as replay, reproduce as reproduce
from .resolution import ResolvedRun as ResolvedRun, resolve as resolve
from .run import Run as Run, Safeguard as Safeguard

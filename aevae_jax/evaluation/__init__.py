"""What there is to measure of a trained model: bounds, likelihoods, codes, samples; and how figures are compared.

metrics.py        means over a data set, what `aevae evaluate` shows, what selects parameters
importance.py     log p(x) by importance sampling
ais.py            log p(x) by annealed importance sampling
code_usage.py     how many discrete codes are in use
latents.py        rate by dimension, active units, mutual information
collapse.py       `aevae diagnose`: posterior collapse and its relatives
findings.py       what is wrong, with its numbers and the run to be trained instead
learning_curve.py whether a training was too short, or overfits
random_codes.py   whether random codes decode to what data look like
disentanglement.py whether single dimensions stand for known factors: MIG, DCI, SAP, FactorVAE score, modularity
image_quality.py  `aevae quality`: distances and shares averaged over classifiers; MSE, PSNR and SSIM
classifiers.py    the classifiers whose features it uses
completion.py     missing entries of tables
estimates.py      results with their evaluation protocol: which may be ranked
rate_distortion.py the curve of a sweep, with intervals over seeds
traversal.py      what each dimension of a code does
statistics.py     Frechet distance, MMD, precision and recall, PCA, intervals, on arrays
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

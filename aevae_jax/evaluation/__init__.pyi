from . import (
    ais as ais,
    classifiers as classifiers,
    collapse as collapse,
    completion as completion,
    disentanglement as disentanglement,
    estimates as estimates,
    image_quality as image_quality,
    importance as importance,
    latents as latents,
    statistics as statistics,
)
from .metrics import (
    SHOWN as SHOWN,
    UNITS as UNITS,
    WHOLE as WHOLE,
    evaluate as evaluate,
    means as means,
    minimised as minimised,
    per_example as per_example,
    selection as selection,
    shown_for as shown_for,
    validation_of as validation_of,
)

from .built_in import digits as digits, sprites as sprites
from .datasets import (
    Column as Column,
    Dataset as Dataset,
    Factor as Factor,
    Format as Format,
    Source as Source,
    Split as Split,
)
from .loading import Data as Data
from .preparation import (
    Dequantize as Dequantize,
    DynamicBinarization as DynamicBinarization,
    Preparation as Preparation,
    Scale as Scale,
    Standardize as Standardize,
    StaticBinarization as StaticBinarization,
    Threshold as Threshold,
)
from .prepared import Prepared as Prepared, prepare as prepare
from .splits import (
    LastSplits as LastSplits,
    OwnSplits as OwnSplits,
    RandomSplits as RandomSplits,
    Splits as Splits,
    from_arrays as from_arrays,
)

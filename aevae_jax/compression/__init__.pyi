from .chunks import Coder as Coder
from .lossy import LossyCoder as LossyCoder
from .stack import Damaged as Damaged

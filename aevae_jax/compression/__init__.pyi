from .chunks import Coder as Coder
from .stack import Damaged as Damaged

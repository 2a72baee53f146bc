from .saving import (
    DamageError as DamageError,
    NonFiniteError as NonFiniteError,
    OtherRunError as OtherRunError,
    Saving as Saving,
)
from .store import Restored as Restored, Store as Store

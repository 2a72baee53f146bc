from .store import (
    DamageError as DamageError,
    NonFiniteError as NonFiniteError,
    OtherRunError as OtherRunError,
    Restored as Restored,
    Saving as Saving,
    Store as Store,
)

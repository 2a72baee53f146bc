from .store import DamageError as DamageError
from .store import NonFiniteError as NonFiniteError
from .store import OtherRunError as OtherRunError
from .store import Restored as Restored
from .store import Saving as Saving
from .store import Store as Store

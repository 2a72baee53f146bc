from . import devices as devices, loops as loops
from .optimizers import Adam as Adam
from .step import (
    Prepare as Prepare,
    Span as Span,
    TrainState as TrainState,
    TrainStep as TrainStep,
    advance as advance,
    batch_rows as batch_rows,
    epoch_order as epoch_order,
    init_state as init_state,
    make_loss as make_loss,
    make_train_step as make_train_step,
    room as room,
    steps_per_epoch as steps_per_epoch,
    train_epoch as train_epoch,
    window_span as window_span,
)

from . import convolutions as convolutions, devices as devices, loops as loops
from .optimizers import AdamW as AdamW
from .step import (
    Chunk as Chunk,
    Prepare as Prepare,
    TrainState as TrainState,
    TrainStep as TrainStep,
    advance as advance,
    batch_rows as batch_rows,
    empty_outputs as empty_outputs,
    epoch_order as epoch_order,
    init_state as init_state,
    make_loss as make_loss,
    make_train_step as make_train_step,
    state_at as state_at,
    steps_per_epoch as steps_per_epoch,
    train_epoch as train_epoch,
    window_chunk as window_chunk,
)

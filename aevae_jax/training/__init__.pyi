from . import convolutions as convolutions, devices as devices, loops as loops, parameters as parameters
from .optimizers import AdamW as AdamW
from .step import (
    Chunk as Chunk,
    Differentiated as Differentiated,
    Prepare as Prepare,
    TrainState as TrainState,
    TrainStep as TrainStep,
    advance as advance,
    batch_rows as batch_rows,
    empty_outputs as empty_outputs,
    epoch_order as epoch_order,
    init_state as init_state,
    make_gradient as make_gradient,
    make_train_step as make_train_step,
    state_at as state_at,
    steps_per_epoch as steps_per_epoch,
    train_epoch as train_epoch,
    window_chunk as window_chunk,
)

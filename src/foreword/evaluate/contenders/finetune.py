"""Full fine-tuning: every weight of a float32 copy is free, and the whole copy has to be kept."""

from __future__ import annotations

from functools import partial

from foreword.evaluate.contender import Context, Prepared, no_argument, with_instruction

WEIGHTS_DTYPE = "float32"
RATES = (2e-5, 5e-5)
WEIGHT_DECAY = 0.01


def check(argument: str | None) -> None:
    """Raises ConfigError when there is an argument."""
    no_argument("finetune", argument)


def prepare(context: Context) -> Prepared:
    """Trains the engine's own weights inside the budget.

    Raises:
        EvaluationError: there is too little data.
        NonFiniteLoss: no rate trained.
    """
    import torch

    from foreword.evaluate.contenders import _training

    start = context.now()
    conversations = partial(with_instruction, context.task.instruction)
    lesson = _training.lesson(context, conversations, room=context.engine.window)
    torch.manual_seed(context.seed)
    module = context.engine.module
    module.requires_grad_(True)
    # Tied weights come once from named_parameters, so nothing is counted or stored twice.
    free = dict(module.named_parameters())
    with _training.stock_attention(module):
        trainee = _training.Trainee(module=module, parameters=free, loss=_training.answer_loss(module), folder=context.scratch)
        trained = _training.train(trainee, lesson, rates=RATES, context=context, start=start, weight_decay=WEIGHT_DECAY)
    module.requires_grad_(False)
    module.zero_grad(set_to_none=True)
    return Prepared(
        engine=context.engine,
        conversations=conversations,
        trained_parameters=sum(parameter.numel() for parameter in free.values()),
        artifact_bytes=trainee.state_file("best").stat().st_size,
        training_seconds=trained.seconds,
        notes=(*trained.notes(), *lesson.notes(), "a whole copy of the weights, float32"),
    )

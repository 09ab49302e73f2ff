"""LoRA: low-rank updates of every linear layer. Hu et al. 2021, through PEFT.

Rank 8, alpha 16, all linear layers but the output head; LoRA's own parameters are float32 whatever the base weights
are, because bfloat16 steps of this size round away. In float32 the updates are merged for the measurement, so that no
latency is charged for them; in narrower dtypes merging would round them, so they stay apart.
"""

from __future__ import annotations

from functools import partial

from foreword.errors import EvaluationError
from foreword.evaluate.contender import Context, Prepared, no_argument, with_instruction

RANK = 8
ALPHA = 16
RATES = (2e-4, 1e-3)


def check(argument: str | None) -> None:
    """Raises ConfigError when there is an argument."""
    no_argument("lora", argument)


def prepare(context: Context) -> Prepared:
    """Trains the updates inside the budget and leaves them in the engine's module.

    Raises:
        EvaluationError: PEFT is not installed, or there is too little data.
        NonFiniteLoss: no rate trained.
    """
    import torch

    from foreword.evaluate.contenders import _training

    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise EvaluationError("`lora` needs the package `peft`. Install it with: pip install 'foreword[compare]'") from error

    start = context.now()
    conversations = partial(with_instruction, context.task.instruction)
    lesson = _training.lesson(context, conversations, room=context.engine.window)
    torch.manual_seed(context.seed)
    module = context.engine.module
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.0)
    with _training.stock_attention(module):
        wrapped = get_peft_model(module, config)
        free = {name: parameter for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
        narrow = [name for name, parameter in free.items() if parameter.dtype != torch.float32]
        if narrow:
            raise EvaluationError(f"LoRA's parameters must be float32; {narrow[0]} and {len(narrow) - 1} more are not. Update `peft`.")
        trainee = _training.Trainee(module=module, parameters=free, loss=_training.answer_loss(module), folder=context.scratch)
        trained = _training.train(trainee, lesson, rates=RATES, context=context, start=start)
    merged = next(iter(module.parameters())).dtype == torch.float32
    if merged:
        wrapped.merge_and_unload()
        # PEFT writes through `.data`, which nobody is told of; what an engine made from a weight must be made anew.
        torch.autograd.graph.increment_version([layer.weight for layer in module.modules() if isinstance(layer, torch.nn.Linear)])
    module.requires_grad_(False)
    return Prepared(
        engine=context.engine,
        conversations=conversations,
        trained_parameters=sum(parameter.numel() for parameter in free.values()),
        artifact_bytes=trainee.state_file("best").stat().st_size,
        training_seconds=trained.seconds,
        notes=(*trained.notes(), *lesson.notes(), "merged into the weights" if merged else "kept apart from the weights"),
    )

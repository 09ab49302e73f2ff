"""`role`: the model is told who it is before it is asked (role-play prompting, Kong et al. 2023, section 3)."""

from __future__ import annotations

from foreword.prompting.strategy import Draft, Run, StrategySettings
from foreword.prompting.template import Shot
from foreword.prompting.turns import with_shots, with_system
from foreword.types import Message

YOU_ARE = "You are {persona}."
TAKE_ROLE = "From now on, you are {persona}. I am going to ask you something. Say in one sentence how you will help me."
MOST_FEEDBACK = 64
"""Tokens."""


class Settings(StrategySettings):
    """
    Attributes:
        persona: who answers, as in "You are ...".
        immerse: instead of a system message, the model is asked to take the role and replies; both turns stand before the question (the
            paper's role-setting prompt and role-feedback prompt). One more call.
    """

    persona: str = "a patient teacher who knows the subject of the question well"
    immerse: bool = False


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """One call, or two."""
    persona = settings.persona.strip().removesuffix(".")
    if not settings.immerse:
        completion = await run.ask(with_system(conversation, YOU_ARE.format(persona=persona) if persona else ""))
        return Draft(text=completion.text)
    setting = TAKE_ROLE.format(persona=persona)
    most = min(MOST_FEEDBACK, run.sampling.max_new_tokens)
    feedback = await run.ask((Message(role="user", content=setting),), purpose="role", max_new_tokens=most)
    completion = await run.ask(with_shots(conversation, [Shot(user=setting, assistant=feedback.text)]))
    return Draft(text=completion.text)

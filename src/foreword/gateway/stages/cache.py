"""`cache`: answers that need no model: those to the very same request, and those to a question that means the same.

What is kept, for whom, and how it is decided that two questions mean the same stands in `foreword.gateway.cache`. Here a task type's
settings are applied to a request. What a request would have cost is remembered with its answer, so that every hit says what it spared.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from foreword.errors import ConfigError
from foreword.gateway.cache.admission import Admission, Outcome
from foreword.gateway.cache.bound import BoundSettings
from foreword.gateway.cache.exact import AnswerStore, CachedAnswer, Found, MemoryStore
from foreword.gateway.cache.key import Cacheable, Key, key_of, refused
from foreword.gateway.cache.sameness import same_answer
from foreword.gateway.cache.semantic import LookUp, SemanticCache, policy_of
from foreword.gateway.cache.shared import RedisStore
from foreword.gateway.passage import Passage, Reply, Target, Versioned
from foreword.gateway.path_settings import AUTO, CacheSettings, PathSettings
from foreword.gateway.path_wire import REPLY
from foreword.gateway.question import question, question_vector
from foreword.gateway.references import References
from foreword.gateway.stage import Next, Parts, Stage
from foreword.gateway.upstream import consumed_of
from foreword.gateway.wire import PromptCall
from foreword.retrieval.embedder import Embedder

TOLD = "foreword-cache"
BYPASS = "no-store"
STALE = "stale cache"
"""What a budget writes on a request that is to be content with an old answer."""
_RULE = Cacheable(temperature="any")
_ADMISSION = Admission()


def make(parts: Parts) -> Stage:
    """The stage. Raises `ConfigError`: a task type wants a semantic cache, and there is no embedder."""
    tasks = [parts.settings.task(name) for name in {*parts.settings.tasks, "default"}]
    if not any(task.cache.on for task in tasks):
        return _off
    kept = Kept(parts, _store(parts))
    if parts.embedder is None and any(task.cache.semantic != "off" for task in tasks):
        raise ConfigError("A semantic cache needs an embedder, and none was loaded. Install one: pip install 'foreword[retrieval]'.")
    return kept.look


async def _off(passage: Passage) -> Next:
    return Next.ON


class Kept:
    """The answers of one server, and what finds them."""

    def __init__(self, parts: Parts, store: AnswerStore) -> None:
        self.store = store
        self._parts, self._settings = parts, parts.settings
        self._semantic: dict[str, SemanticCache] = {}
        self._prompts = None if parts.prompts is None else References(parts.prompts)

    async def look(self, passage: Passage) -> Next:
        """Looks for an answer; where there is none, has the one that comes kept."""
        settings = passage.task.cache
        if not settings.on or passage.headers.get("cache-control") == BYPASS:
            return Next.ON
        body = msgspec.to_builtins(passage.request)
        why = _unfit(body, settings)
        if why is not None:
            passage.told[TOLD] = f"off: {why}"
            return Next.ON
        key = key_of(body, **self._place(passage))
        return Next.ANSWERED if await self._found(passage, key, settings) else Next.ON

    async def _found(self, passage: Passage, key: Key, settings: CacheSettings) -> bool:
        stale = STALE in passage.degraded
        if settings.exact or settings.semantic != "off":
            found = await self.store.get(key.exact, tenant=key.tenant, stale=stale)
            if found is not None and (settings.exact or found.stale):
                return self._answer(passage, found, "stale" if found.stale else "exact", 1.0)
        semantic = self._semantics(passage.task.name, settings)
        look_up = None
        if semantic is not None:
            look_up = semantic.look_up(key, vector_D=self._vector(passage, key))
            if look_up.hit and look_up.entry is not None:
                found = await self.store.get(look_up.entry.exact, tenant=key.tenant, stale=stale)
                if found is not None:
                    return self._answer(passage, found, "stale" if found.stale else "semantic", look_up.similarity)
                semantic.forget(look_up.entry.exact)
        passage.cache, passage.told[TOLD] = "miss", "miss"
        passage.afterwards.append(self._admission(passage, key, settings, semantic, look_up))
        return False

    def _answer(self, passage: Passage, found: Found, kind: Any, similarity: float) -> bool:
        body = REPLY.decode(found.answer.body)
        choice = body.choices[0]
        consumed = consumed_of(body.usage)
        passage.reply = Reply(
            model=found.answer.model,
            body=found.answer.body,
            text=choice.message.content if isinstance(choice.message.content, str) else "",
            finish_reason=choice.finish_reason,
            consumed=None,
        )
        passage.model, passage.cache = found.answer.model, kind
        passage.prompt = found.answer.prompt_version or passage.prompt
        passage.told[TOLD] = f"{kind}; age={found.age:.0f}; similarity={similarity:.3f}"
        passage.told["foreword-model"] = found.answer.model
        if consumed is not None:
            passage.spared = (found.answer.model, consumed)
        return True

    def _admission(
        self, passage: Passage, key: Key, settings: CacheSettings, semantic: SemanticCache | None, look_up: LookUp | None
    ) -> Callable[[], Awaitable[None]]:
        """What is done once the answer is complete: it is kept where it may be, and the semantic cache is told what it can learn."""

        async def admit() -> None:
            reply = passage.reply
            if reply is None or passage.status != "answered":
                return
            if _ADMISSION.refused(_outcome(passage, reply)) is not None:
                return
            if semantic is not None and look_up is not None:
                await self._learn(semantic, key, look_up, reply)
            answer = CachedAnswer(
                tenant=key.tenant,
                body=reply.body or _whole(passage, reply),
                model=reply.model,
                created=time.time(),
                ttl=settings.ttl_seconds,
                prefix_versions=self._versions(reply.model, passage),
                prompt_version=passage.prompt or None,
                tags=frozenset(settings.tags),
            )
            await self.store.put(key.exact, answer)
            if semantic is not None and look_up is not None:
                semantic.add(key, look_up)

        return admit

    async def _learn(self, semantic: SemanticCache, key: Key, look_up: LookUp, reply: Reply) -> None:
        """Compares the new answer with those of the near questions."""
        assert self._parts.embedder is not None, "a semantic cache has one"
        same: dict[int, bool] = {}
        for entry in dict.fromkeys((look_up.entry, *look_up.near)):
            found = None if entry is None else await self.store.get(entry.exact, tenant=key.tenant, stale=True)
            if entry is not None and found is not None:
                content = REPLY.decode(found.answer.body).choices[0].message.content
                same[entry.number] = same_answer(reply.text, content if isinstance(content, str) else "", self._parts.embedder)
        if same:
            semantic.observe(key, look_up, same=same)

    def _semantics(self, task: str, settings: CacheSettings) -> SemanticCache | None:
        """The task type's own index, so that what one type learns moves no other's decisions."""
        if settings.semantic == "off" or self._parts.embedder is None:
            return None
        if task not in self._semantic:
            self._semantic[task] = _semantic(self._parts.embedder, settings, self._settings)
        return self._semantic[task]

    def _vector(self, passage: Passage, key: Key) -> Any:
        """The question's, which intake may have made already."""
        if self._parts.embedder is None or key.question != question(passage.request):
            return None
        return question_vector(passage, self._parts.embedder)

    def _place(self, passage: Passage) -> dict[str, Any]:
        """What the key has besides the request: whose it is, and which models, prefixes and prompt may answer it."""
        asked = passage.request.model
        models = passage.task.tiers if asked == AUTO else (asked,)
        return {
            "tenant": passage.tenant.name,
            "model": f"{passage.task.name}: {asked}",
            "prefix_versions": [version for model in models for version in (model, *self._versions(model, passage))],
            "prompt_version": self._prompt(passage),
        }

    def _prompt(self, passage: Passage) -> str | None:
        """The version of the stored prompt that will stand first; as it was named where there is none such, which `assemble` refuses."""
        asked = passage.request.prompt
        if isinstance(asked, PromptCall):
            name = asked.id if asked.version is None else f"{asked.id}@{asked.version}"
        else:
            name = passage.task.assemble.prompt
        if name is None or self._prompts is None:
            return name
        found = self._prompts.find(name, passage.tenant)
        return name if found is None else str(found)

    def _versions(self, model: str, passage: Passage) -> tuple[str, ...]:
        name, colon, _ = model.partition(":")
        target: Target | None = self._parts.targets.get(name)
        return (target.version(model, passage.tenant),) if colon and isinstance(target, Versioned) else ()


def _semantic(embedder: Embedder, settings: CacheSettings, path: PathSettings) -> SemanticCache:
    bound = BoundSettings(bound=settings.bound) if settings.semantic == "bound" else None
    policy = policy_of(bound=bound, threshold=None if bound is not None else settings.threshold)
    return SemanticCache(embedder, policy, most_entries=max(1, path.store.cache_entries))


def _store(parts: Parts) -> AnswerStore:
    store, tasks = parts.settings.store, parts.settings.tasks.values()
    keep_stale = max((task.cache.stale_seconds for task in tasks), default=0.0)
    if store.redis is None:
        return MemoryStore(most_bytes=store.cache_bytes, keep_stale=keep_stale)
    shared = RedisStore.at(store.redis, keep_stale=keep_stale)
    parts.closing.append(shared.close)
    return shared


def _unfit(body: Mapping[str, Any], settings: CacheSettings) -> str | None:
    temperature = body.get("temperature")
    if temperature is not None and temperature > settings.temperature_at_most:
        return "drawn answers"
    return refused(body, _RULE)


def _outcome(passage: Passage, reply: Reply) -> Outcome:
    return Outcome(
        finish_reasons=(reply.finish_reason,),
        passed=passage.success,
        fallback=passage.fallbacks > 0,
        question=[message.text for message in passage.request.messages],
        answer=(reply.text,),
        calls_tools=reply.tool_calls,
    )


def _whole(passage: Passage, reply: Reply) -> bytes:
    """A streamed answer as one that was not."""
    consumed = reply.consumed
    usage = None
    if consumed is not None:
        tokens = {"prompt_tokens": consumed.input_tokens, "completion_tokens": consumed.output_tokens}
        usage = {**tokens, "total_tokens": sum(tokens.values()), "prompt_tokens_details": {"cached_tokens": consumed.cache_read_tokens}}
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    whole = {
        "id": passage.id,
        "object": "chat.completion",
        "created": int(passage.at.timestamp()),
        "model": reply.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}],
        "usage": usage,
    }
    return msgspec.json.encode(whole)

"""Answers that need no model: found by the digest of their request, or by what its question means."""

from foreword.gateway.cache.admission import Admission, Outcome
from foreword.gateway.cache.bound import BoundSettings, ErrorBound, FixedThreshold
from foreword.gateway.cache.exact import AnswerStore, CachedAnswer, Found, MemoryStore, Selection
from foreword.gateway.cache.key import Cacheable, Key, key_of, refused
from foreword.gateway.cache.private_data import Patterns, PrivateData
from foreword.gateway.cache.semantic import LookUp, SemanticCache, policy_of

__all__ = [
    "Admission",
    "AnswerStore",
    "BoundSettings",
    "Cacheable",
    "CachedAnswer",
    "ErrorBound",
    "FixedThreshold",
    "Found",
    "Key",
    "LookUp",
    "MemoryStore",
    "Outcome",
    "Patterns",
    "PrivateData",
    "Selection",
    "SemanticCache",
    "key_of",
    "policy_of",
    "refused",
]

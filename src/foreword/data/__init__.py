"""Training and dev data: reading, checking, mending."""

from foreword.data.checking import check
from foreword.data.dataset import Dataset, Kind, Skip
from foreword.data.fixing import Split, dedupe, split, write_jsonl
from foreword.data.reading import from_rows, read
from foreword.data.report import DataReport

__all__ = ["DataReport", "Dataset", "Kind", "Skip", "Split", "check", "dedupe", "from_rows", "read", "split", "write_jsonl"]

"""The learned router: of which model a success can be expected, and whether a dearer one is worth its price."""

from foreword.gateway.routing.router import Choice, Router
from foreword.gateway.routing.table import Table, read_table

__all__ = ["Choice", "Router", "Table", "read_table"]

"""The import-linter contract of a plural folder: its implementations do not import each other.

import-linter's own `independence` contract would also part the implementations from the private modules (`_name.py`) that a folder
keeps for all of them. Those are left out here, as ends of a chain but not as links: two implementations that reach each other through
a private module break the wall all the same.
"""

from __future__ import annotations

from grimp import ImportGraph
from importlinter.contracts.independence import IndependenceContract
from importlinter.domain.contract import ContractCheck
from importlinter.domain.helpers import module_expressions_to_modules
from importlinter.domain.imports import ModuleExpression


class SiblingsContract(IndependenceContract):
    """`independence` over the public modules that match `modules`; a pattern that matches nothing is a room not yet built."""

    type_name = "siblings"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        matched = [module.name for module in module_expressions_to_modules(graph, self.modules)]
        self.modules = {ModuleExpression(name) for name in matched if not name.rsplit(".", 1)[-1].startswith("_")}
        return super().check(graph, verbose)

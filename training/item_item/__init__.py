"""Making B, the item-item table (D10): EASE's entries or their like, and the items' look-alikes by content.

tables     largest entries of a row, two hops, sums, scores, the kernel's form
ease       the exact regression: one J×J inverse
local      the same regression in neighborhoods, for large catalogues
rp3beta    a walk of three steps
content    look-alikes by features and by the knowledge graph
selection  what the settings say, and what they leave open selected on validation
benches    how good a table is beside other scores
"""

from training.item_item.benches import BesideScores, BesideTable, ndcg_beside
from training.item_item.content import Content
from training.item_item.ease import ease_weights
from training.item_item.rp3beta import rp3beta_weights
from training.item_item.selection import (
    EASE_L2,
    Regressions,
    climb,
    item_item_weights,
    resolved_method,
    select_weights,
    without_selection,
)
from training.item_item.tables import (
    item_item_table,
    largest_entries,
    largest_of_dense,
    table_matrix,
    table_scores,
    two_hops,
    with_share,
)

__all__ = [
    "EASE_L2",
    "BesideScores",
    "BesideTable",
    "Content",
    "Regressions",
    "climb",
    "ease_weights",
    "item_item_table",
    "item_item_weights",
    "largest_entries",
    "largest_of_dense",
    "ndcg_beside",
    "resolved_method",
    "rp3beta_weights",
    "select_weights",
    "table_matrix",
    "table_scores",
    "two_hops",
    "with_share",
    "without_selection",
]

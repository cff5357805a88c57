"""How many operations the diffusion of an epoch costs, from the data and the settings."""

from __future__ import annotations

from training.data.dataset import DataSet
from training.row_diffusion import SparseRows, operations
from training.settings import TrainingSettings
from training.trained import knowledge_of


def operations_of(data: DataSet, settings: TrainingSettings) -> dict[str, int] | None:
    """Multiplications and additions of the diffusion in an epoch; None where there is no diffusion to count.

    KDiffE's rows are items and its columns entities. DiffMM has a denoiser for each modality, over users and items.
    """
    n_columns, repeated = data.n_items, len(data.features)
    if settings.model.kind == "kdiffe":
        graph, _ = knowledge_of(data, settings)
        generates = settings.contrast.second_view == "generated" and settings.diffusion.graph == "diffusion"
        if graph is None or not generates:
            return None
        rows = SparseRows.from_pairs(graph.item_rows, graph.entity_rows, data.n_items, len(graph.entity_ids))
        repeated = 1
    else:
        rows = SparseRows.from_pairs(data.train.user_rows, data.train.item_rows, data.n_users, n_columns)
    training, reverse = operations(rows, settings.model.width, settings.diffusion)
    every = settings.diffusion.rebuild_every
    return {"training": repeated * training // every, "reverse": repeated * reverse // every}

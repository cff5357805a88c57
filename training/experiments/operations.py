"""How many operations the diffusion of an epoch costs, from the data and the settings."""

from __future__ import annotations

from dataclasses import replace

from training.data.dataset import DataSet
from training.row_diffusion import SparseRows, operations
from training.settings import TrainingSettings
from training.trained import knowledge_of


def operations_of(data: DataSet, settings: TrainingSettings) -> dict[str, int] | None:
    """Multiplications and additions of the diffusion in an epoch; None where there is no diffusion to count.

    KDiffE's rows are items and its columns entities. DiffMM has a denoiser for each modality, over users and items,
    without a guide. The denoiser trains in every epoch, and every `rebuild_every`-th has a reverse process: its share.
    """
    if settings.diffusion.graph != "diffusion":
        return None
    if settings.model.kind == "kdiffe":
        graph, _ = knowledge_of(data, settings)
        if graph is None or settings.contrast.second_view != "generated":
            return None
        rows = SparseRows.from_pairs(graph.item_rows, graph.entity_rows, data.n_items, len(graph.entity_ids))
        repeated = 1
        training, reverse = operations(rows, settings.model.width, settings.diffusion)
    else:
        rows = SparseRows.from_pairs(data.train.user_rows, data.train.item_rows, data.n_users, data.n_items)
        repeated, has_signal = len(data.features), settings.diffusion.guided
        bare = replace(settings.diffusion, guided=False)
        training, reverse = operations(rows, settings.model.width, bare, has_target=has_signal)
    return {"training": repeated * training, "reverse": repeated * reverse // settings.diffusion.rebuild_every}

"""A model put together from settings, a data set and its graphs."""

from __future__ import annotations

import torch

from model_store.attention import AttentionState
from training.data.dataset import DataSet, KnowledgeGraph
from training.errors import ConfigurationError
from training.evaluation import interaction_matrix
from training.models.diffmm import make_diffmm
from training.models.generated import GeneratedGraph
from training.models.graph import Laplacian
from training.models.kdiffe import KDiffE
from training.models.knowledge import KnowledgeView
from training.models.multimodal import MultimodalView
from training.models.recommender import Recommender
from training.models.view import View
from training.nn.aggregation import Triplets
from training.settings import TrainingSettings


def make_model(
    data: DataSet,
    settings: TrainingSettings,
    state: AttentionState,
    knowledge: KnowledgeGraph | None,
    device: torch.device,
) -> Recommender:
    """The model that the settings ask for, on a device.

    Parameters are drawn on the CPU, so that one seed gives one start on every device. A user without interactions is
    never trained: its rows are zero from the start, so that validation sees what is served.

    Args:
        data: the data set.
        settings: everything that training can be told.
        state: the attention state of the train interactions.
        knowledge: the knowledge graph, entities made from features included, or None.
        device: where it lives.

    Raises:
        ConfigurationError: the data lacks what the model needs, or the settings are impossible.
    """
    laplacian = Laplacian.of(state, settings.model.similarity_weight, settings.model.self_loops, device)
    make = _kdiffe if settings.model.kind == "kdiffe" else _diffmm
    made = make(data, settings, laplacian, knowledge, device)
    made = made.to(device)
    without = torch.from_numpy(state.degrees[: data.n_users] == 0).to(device)
    with torch.no_grad():
        for view in made.view_list():
            view.forget_users(without)
    return made


def uses_features(settings: TrainingSettings) -> bool:
    """Whether feature vectors enter the model itself or B, so that a retrain needs them again."""
    in_model = settings.model.kind == "diffmm" or "multimodal" in settings.model.views
    return in_model or any(content.startswith("features") for content in _contents_of_table(settings))


def uses_relations(settings: TrainingSettings) -> bool:
    """Whether B has look-alikes by the knowledge graph, so that a retrain needs it even where the model does not."""
    return any(content.startswith("relation") for content in _contents_of_table(settings))


def _contents_of_table(settings: TrainingSettings) -> list[str]:
    table = settings.item_item
    if table.weight == 0:
        return []
    return [choice.content for choice in table.mean_of] or [table.content]


def _kdiffe(
    data: DataSet,
    settings: TrainingSettings,
    laplacian: Laplacian,
    knowledge: KnowledgeGraph | None,
    device: torch.device,
) -> Recommender:
    model = settings.model
    generator = torch.Generator().manual_seed(settings.run.seed)
    triplets = None
    if knowledge is not None and len(knowledge):
        triplets = triplets_of(knowledge, data.n_items, device)
    n_relations = 0 if knowledge is None else len(knowledge.relation_ids)
    views: list[View] = [KnowledgeView(data.n_users, data.n_items, model, generator, triplets, n_relations)]
    if "multimodal" in model.views and data.features:
        views.append(MultimodalView(data.n_users, data.features, model, settings.multimodal.width, generator))
    generated = None
    contrast = settings.contrast
    if triplets is not None and knowledge is not None and contrast.second_view == "generated":
        history = interaction_matrix(data.train, data.n_users, data.n_items)
        generated = GeneratedGraph(knowledge, history, model.width, settings.diffusion, settings.run.seed, device)
    return KDiffE(data.n_users, data.n_items, laplacian, views, generated, contrast, settings.run.seed)


def _diffmm(
    data: DataSet,
    settings: TrainingSettings,
    laplacian: Laplacian,
    knowledge: KnowledgeGraph | None,
    device: torch.device,
) -> Recommender:
    del knowledge  # DiffMM has features alone.
    if not data.features:
        raise ConfigurationError(
            f"model.kind = 'diffmm' needs feature vectors of the items, and {data.name} has none: "
            "bring them as features/MODALITY.npy, a row for each item of NAME.item (README.md, With your own data), or "
            "train kdiffe."
        )
    history = interaction_matrix(data.train, data.n_users, data.n_items)
    parts = (settings.model, settings.multimodal, settings.diffusion, settings.contrast)
    return make_diffmm(history, data.features, laplacian, *parts, settings.run.seed, device)


def triplets_of(knowledge: KnowledgeGraph, n_items: int, device: torch.device) -> Triplets:
    """A knowledge graph on a device."""
    return Triplets.from_rows(
        knowledge.item_rows,
        knowledge.relation_rows,
        knowledge.entity_rows,
        n_items,
        len(knowledge.entity_ids),
        device,
    )

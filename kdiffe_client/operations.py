"""Every operation of the service.

Made from the service's OpenAPI description by `make client`: not to be changed by hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

from kdiffe_client import models
from kdiffe_client.request import Request, segment


class Operations(ABC):
    """The operations as methods."""

    @abstractmethod
    def _ask(self, request: Request) -> Any:
        """The answer to a request."""

    def recommend(
        self, user_id: str, *, k: int | None = None, at_least: int | None = None, variant: str | None = None
    ) -> models.Recommendations:
        """The k best items that the user has not seen.

        `GET /recommend/{user_id}`. An unknown user gets the popular items.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
            variant: Answer as this variant of the experiment does (`main`: the active version), whoever the user.
        """
        return cast(
            "models.Recommendations",
            self._ask(
                Request(
                    "GET", f"/recommend/{segment(user_id)}", query={"k": k, "at_least": at_least, "variant": variant}
                )
            ),
        )

    def similar(
        self, item_id: str, *, k: int | None = None, at_least: int | None = None, variant: str | None = None
    ) -> models.SimilarItems:
        """The k items nearest to an item.

        `GET /similar/{item_id}`. By the cosine of the items' vectors.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
            variant: Answer as this variant of the experiment does (`main`: the active version), whoever the user.
        """
        return cast(
            "models.SimilarItems",
            self._ask(
                Request("GET", f"/similar/{segment(item_id)}", query={"k": k, "at_least": at_least, "variant": variant})
            ),
        )

    def popular(self, *, k: int | None = None, at_least: int | None = None) -> models.ItemList:
        """The k items with the most interactions.

        `GET /popular`. Each user counts once for an item.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
        """
        return cast("models.ItemList", self._ask(Request("GET", "/popular", query={"k": k, "at_least": at_least})))

    def recommend_lists(
        self, body: models.RecommendIn, *, at_least: int | None = None, variant: str | None = None
    ) -> models.Lists:
        """Lists for several users or an anonymous session, filtered, boosted, diverse, in pages.

        `POST /recommend`. All conditions hold exactly: a list is as long as there are items that are allowed and
        unseen, up to k.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
            variant: Answer as this variant of the experiment does (`main`: the active version), whoever the user.
        """
        return cast(
            "models.Lists",
            self._ask(Request("POST", "/recommend", query={"at_least": at_least, "variant": variant}, body=body)),
        )

    def explain(
        self,
        user_id: str,
        item_id: str,
        *,
        parts: str | None = None,
        k: int | None = None,
        most: int | None = None,
        recommendation_id: str | None = None,
        at_least: int | None = None,
        variant: str | None = None,
    ) -> models.Explanation:
        """Why the user gets this score for this item.

        `GET /explain/{user_id}/{item_id}`. The score as self + one contribution for each of the user's items.

        Args:
            parts: Further parts, comma-separated: paths, reasons, counterfactual, why_not. The plain reply takes
                the least time.
            k: Length of the list that counterfactual and why_not are about.
            most: How many interactions a counterfactual may name, 1 to 50.
            recommendation_id: Of a reply of /recommend: explain what it served, as long as the version and the
                log are kept.
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
            variant: Answer as this variant of the experiment does (`main`: the active version), whoever the user.
        """
        return cast(
            "models.Explanation",
            self._ask(
                Request(
                    "GET",
                    f"/explain/{segment(user_id)}/{segment(item_id)}",
                    query={
                        "parts": parts,
                        "k": k,
                        "most": most,
                        "recommendation_id": recommendation_id,
                        "at_least": at_least,
                        "variant": variant,
                    },
                )
            ),
        )

    def explain_filtered(
        self,
        user_id: str,
        item_id: str,
        body: models.ExplainIn,
        *,
        at_least: int | None = None,
        variant: str | None = None,
    ) -> models.Explanation:
        """The same about a list with filters.

        `POST /explain/{user_id}/{item_id}`. `counterfactual` and `why_not` are about the list that `POST
        /recommend` gives with the same conditions.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
            variant: Answer as this variant of the experiment does (`main`: the active version), whoever the user.
        """
        return cast(
            "models.Explanation",
            self._ask(
                Request(
                    "POST",
                    f"/explain/{segment(user_id)}/{segment(item_id)}",
                    query={"at_least": at_least, "variant": variant},
                    body=body,
                )
            ),
        )

    def history(
        self, user_id: str, *, limit: int | None = None, offset: int | None = None, at_least: int | None = None
    ) -> models.History:
        """What a user has interacted with.

        `GET /history/{user_id}`. What came since the version first, then by S(u, i).

        Args:
            limit: Most items of the answer.
            offset: Items left out at the beginning.
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
        """
        return cast(
            "models.History",
            self._ask(
                Request(
                    "GET",
                    f"/history/{segment(user_id)}",
                    query={"limit": limit, "offset": offset, "at_least": at_least},
                )
            ),
        )

    def describe_items(self, *, item_id: Sequence[str], at_least: int | None = None) -> models.Items:
        """Names, entities and numbers of interactions of items.

        `GET /items`. `?item_id=a&item_id=b`; ids that are unknown are listed as such.

        Args:
            item_id: External ids, one parameter each.
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
        """
        return cast(
            "models.Items", self._ask(Request("GET", "/items", query={"item_id": item_id, "at_least": at_least}))
        )

    def get_item(self, item_id: str, *, at_least: int | None = None) -> models.ItemOut:
        """What is known of an item.

        `GET /items/{item_id}`. Its record, and whether it can be recommended. The id is percent-encoded in the
        path.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
        """
        return cast(
            "models.ItemOut", self._ask(Request("GET", f"/items/{segment(item_id)}", query={"at_least": at_least}))
        )

    def put_item(self, item_id: str, body: models.ItemIn, *, idempotency_key: str | None = None) -> models.ItemTaken:
        """Put an item's record: it can be recommended and filtered by at once.

        `PUT /items/{item_id}`. Answered once it is durable and applied. A withdrawn item is back. The id is
        percent-encoded in the path.

        Args:
            idempotency_key: Sent again with the same key, it counts once.
        """
        return cast(
            "models.ItemTaken",
            self._ask(
                Request("PUT", f"/items/{segment(item_id)}", headers={"Idempotency-Key": idempotency_key}, body=body)
            ),
        )

    def withdraw_item(self, item_id: str, *, idempotency_key: str | None = None) -> models.ItemTaken:
        """Withdraw an item: it is never recommended again, until it is put again.

        `DELETE /items/{item_id}`. Its record goes; what users did with it still says what they like. The id is
        percent-encoded in the path.

        Args:
            idempotency_key: Sent again with the same key, it counts once.
        """
        return cast(
            "models.ItemTaken",
            self._ask(Request("DELETE", f"/items/{segment(item_id)}", headers={"Idempotency-Key": idempotency_key})),
        )

    def add_interactions(self, body: models.NewInteraction | models.NewInteractions) -> models.Accepted:
        """Tell what users did.

        `POST /interactions`. Answered once the interactions are on disk and applied: no list shows them from then
        on.
        """
        return cast("models.Accepted", self._ask(Request("POST", "/interactions", body=body)))

    def remove_interaction(self, *, user_id: str, item_id: str, idempotency_key: str | None = None) -> models.Accepted:
        """Remove what a user did with an item.

        `DELETE /interactions`. All of the user's interactions with the item no longer count, from wherever they are
        known. Answered once that is on disk and applied: the item may be recommended to the user again.

        Args:
            user_id: External id.
            item_id: External id.
            idempotency_key: Sent again with the same key, it counts once.
        """
        return cast(
            "models.Accepted",
            self._ask(
                Request(
                    "DELETE",
                    "/interactions",
                    query={"user_id": user_id, "item_id": item_id},
                    headers={"Idempotency-Key": idempotency_key},
                )
            ),
        )

    def get_user(self, user_id: str, *, at_least: int | None = None) -> models.UserOut:
        """What is known of a user.

        `GET /users/{user_id}`. Its record and how much it has interacted. The id is percent-encoded in the path.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
        """
        return cast(
            "models.UserOut", self._ask(Request("GET", f"/users/{segment(user_id)}", query={"at_least": at_least}))
        )

    def put_user(self, user_id: str, body: models.UserIn, *, idempotency_key: str | None = None) -> models.UserTaken:
        """Put a user's record in the place of the one before.

        `PUT /users/{user_id}`. Answered once it is durable. The id is percent-encoded in the path.

        Args:
            idempotency_key: Sent again with the same key, it counts once.
        """
        return cast(
            "models.UserTaken",
            self._ask(
                Request("PUT", f"/users/{segment(user_id)}", headers={"Idempotency-Key": idempotency_key}, body=body)
            ),
        )

    def erase_user(self, user_id: str) -> models.UserErased:
        """Erase a user: interactions, record and idempotency keys.

        `DELETE /users/{user_id}`. Gone from the state and the served model when it is answered. T and the items'
        vectors forget with the next refresh, artifacts with the next version: older ones are listed. Ids are
        percent-encoded in the path.
        """
        return cast("models.UserErased", self._ask(Request("DELETE", f"/users/{segment(user_id)}")))

    def retrain(self) -> models.RetrainAccepted:
        """Retrain with all interactions and swap the new version in.

        `POST /admin/retrain`. One job runs at a time, and one may wait. GET /admin/jobs/{job_id} tells how far it
        is.
        """
        return cast("models.RetrainAccepted", self._ask(Request("POST", "/admin/retrain")))

    def jobs(self) -> models.JobList:
        """Jobs, the newest first.

        `GET /admin/jobs`. The latest hundred.
        """
        return cast("models.JobList", self._ask(Request("GET", "/admin/jobs")))

    def job(self, job_id: str) -> models.JobAnswer:
        """One job.

        `GET /admin/jobs/{job_id}`. Where it stands, and what it published or why it failed.
        """
        return cast("models.JobAnswer", self._ask(Request("GET", f"/admin/jobs/{segment(job_id)}")))

    def job_log(self, job_id: str) -> models.JobLog:
        """The last words of a job's training.

        `GET /admin/jobs/{job_id}/log`. Of this moment where it runs on this machine, some seconds old where it runs
        elsewhere.
        """
        return cast("models.JobLog", self._ask(Request("GET", f"/admin/jobs/{segment(job_id)}/log")))

    def cancel_job(self, job_id: str) -> models.JobAnswer:
        """Cancel a job that waits or runs.

        `POST /admin/jobs/{job_id}/cancel`. Its process ends within seconds; nothing is activated. A version that is
        being put in force stays: roll back.
        """
        return cast("models.JobAnswer", self._ask(Request("POST", f"/admin/jobs/{segment(job_id)}/cancel")))

    def type_weights(self) -> models.TypeWeights:
        """Weights of the interaction types.

        `GET /admin/types`. How often the loss samples interactions of each type; the graph of interactions is
        binary.
        """
        return cast("models.TypeWeights", self._ask(Request("GET", "/admin/types")))

    def weigh_type(self, name: str, body: models.TypeWeight) -> models.TypeWeights:
        """Give a type of interaction a weight.

        `PUT /admin/types/{name}`. It counts from the next training on. The type is percent-encoded in the path.
        """
        return cast("models.TypeWeights", self._ask(Request("PUT", f"/admin/types/{segment(name)}", body=body)))

    def list_models(self) -> models.ModelList:
        """Versions of the store, the oldest first.

        `GET /admin/models`. Which is active, and which is served.
        """
        return cast("models.ModelList", self._ask(Request("GET", "/admin/models")))

    def describe_model(self, version: str) -> models.ModelDetail:
        """One version: how it was made, and its report.

        `GET /admin/models/{version}`. The report has metrics with their slices and the training's curve
        (docs/evaluation.md).
        """
        return cast("models.ModelDetail", self._ask(Request("GET", f"/admin/models/{segment(version)}")))

    def activate_model(self, version: str) -> models.Activated:
        """Put a version in force.

        `POST /admin/models/{version}/activate`. Answered once it is served; a version that can't be served is taken
        back.
        """
        return cast("models.Activated", self._ask(Request("POST", f"/admin/models/{segment(version)}/activate")))

    def rollback(self) -> models.Activated:
        """Put the version that was active before in force again.

        `POST /admin/rollback`. Answered once it is served.
        """
        return cast("models.Activated", self._ask(Request("POST", "/admin/rollback")))

    def experiment(self) -> models.Experiment:
        """The versions that shares of the users get.

        `GET /admin/experiment`. As this worker serves it; `name` is null where everybody gets the active version.
        """
        return cast("models.Experiment", self._ask(Request("GET", "/admin/experiment")))

    def put_experiment(self, body: models.NewExperiment) -> models.Experiment:
        """Give shares of the users other versions.

        `PUT /admin/experiment`. In the place of the one that runs. Answered once all is served; a canary is an
        experiment with one variant. The same users every time, by a hash of their ids; under the same name, shares
        that change move as few users as can be. Ends with the next activation or roll back.
        """
        return cast("models.Experiment", self._ask(Request("PUT", "/admin/experiment", body=body)))

    def end_experiment(self) -> models.Experiment:
        """Give everybody the active version.

        `DELETE /admin/experiment`. Nothing happens where no experiment runs.
        """
        return cast("models.Experiment", self._ask(Request("DELETE", "/admin/experiment")))

    def digest(self) -> models.Digest:
        """The names of this worker's bits, to compare workers and hosts.

        `GET /admin/digest`. Settles first, so it may take a moment. Whichever worker accepts the connection
        answers, for itself.
        """
        return cast("models.Digest", self._ask(Request("GET", "/admin/digest")))

    def live(self) -> models.Live:
        """Whether the process answers.

        `GET /health/live`. Always, while it runs.
        """
        return cast("models.Live", self._ask(Request("GET", "/health/live")))

    def ready(self) -> models.Ready:
        """Whether a model is served and follows the log.

        `GET /health/ready`. 200 while reads are answered, 503 where no model is served or it follows the log no
        more. `degraded` says that reads come from memory alone, because the log can't be read, and that writes are
        refused; or that writes fail (for a minute after the last one that did, unless one succeeds). `problem`
        tells of an active version that can't be served while an earlier one is: the status is `degraded`, too.
        """
        return cast("models.Ready", self._ask(Request("GET", "/health/ready")))

    def metrics(self) -> str:
        """Metrics for Prometheus.

        `GET /metrics`. Prometheus' text format.
        """
        return cast("str", self._ask(Request("GET", "/metrics", text=True)))


class AsyncOperations(ABC):
    """The operations as asynchronous methods."""

    @abstractmethod
    async def _ask(self, request: Request) -> Any:
        """The answer to a request."""

    async def recommend(
        self, user_id: str, *, k: int | None = None, at_least: int | None = None, variant: str | None = None
    ) -> models.Recommendations:
        """The k best items that the user has not seen.

        `GET /recommend/{user_id}`. An unknown user gets the popular items.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
            variant: Answer as this variant of the experiment does (`main`: the active version), whoever the user.
        """
        return cast(
            "models.Recommendations",
            await self._ask(
                Request(
                    "GET", f"/recommend/{segment(user_id)}", query={"k": k, "at_least": at_least, "variant": variant}
                )
            ),
        )

    async def similar(
        self, item_id: str, *, k: int | None = None, at_least: int | None = None, variant: str | None = None
    ) -> models.SimilarItems:
        """The k items nearest to an item.

        `GET /similar/{item_id}`. By the cosine of the items' vectors.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
            variant: Answer as this variant of the experiment does (`main`: the active version), whoever the user.
        """
        return cast(
            "models.SimilarItems",
            await self._ask(
                Request("GET", f"/similar/{segment(item_id)}", query={"k": k, "at_least": at_least, "variant": variant})
            ),
        )

    async def popular(self, *, k: int | None = None, at_least: int | None = None) -> models.ItemList:
        """The k items with the most interactions.

        `GET /popular`. Each user counts once for an item.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
        """
        return cast(
            "models.ItemList", await self._ask(Request("GET", "/popular", query={"k": k, "at_least": at_least}))
        )

    async def recommend_lists(
        self, body: models.RecommendIn, *, at_least: int | None = None, variant: str | None = None
    ) -> models.Lists:
        """Lists for several users or an anonymous session, filtered, boosted, diverse, in pages.

        `POST /recommend`. All conditions hold exactly: a list is as long as there are items that are allowed and
        unseen, up to k.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
            variant: Answer as this variant of the experiment does (`main`: the active version), whoever the user.
        """
        return cast(
            "models.Lists",
            await self._ask(Request("POST", "/recommend", query={"at_least": at_least, "variant": variant}, body=body)),
        )

    async def explain(
        self,
        user_id: str,
        item_id: str,
        *,
        parts: str | None = None,
        k: int | None = None,
        most: int | None = None,
        recommendation_id: str | None = None,
        at_least: int | None = None,
        variant: str | None = None,
    ) -> models.Explanation:
        """Why the user gets this score for this item.

        `GET /explain/{user_id}/{item_id}`. The score as self + one contribution for each of the user's items.

        Args:
            parts: Further parts, comma-separated: paths, reasons, counterfactual, why_not. The plain reply takes
                the least time.
            k: Length of the list that counterfactual and why_not are about.
            most: How many interactions a counterfactual may name, 1 to 50.
            recommendation_id: Of a reply of /recommend: explain what it served, as long as the version and the
                log are kept.
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
            variant: Answer as this variant of the experiment does (`main`: the active version), whoever the user.
        """
        return cast(
            "models.Explanation",
            await self._ask(
                Request(
                    "GET",
                    f"/explain/{segment(user_id)}/{segment(item_id)}",
                    query={
                        "parts": parts,
                        "k": k,
                        "most": most,
                        "recommendation_id": recommendation_id,
                        "at_least": at_least,
                        "variant": variant,
                    },
                )
            ),
        )

    async def explain_filtered(
        self,
        user_id: str,
        item_id: str,
        body: models.ExplainIn,
        *,
        at_least: int | None = None,
        variant: str | None = None,
    ) -> models.Explanation:
        """The same about a list with filters.

        `POST /explain/{user_id}/{item_id}`. `counterfactual` and `why_not` are about the list that `POST
        /recommend` gives with the same conditions.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
            variant: Answer as this variant of the experiment does (`main`: the active version), whoever the user.
        """
        return cast(
            "models.Explanation",
            await self._ask(
                Request(
                    "POST",
                    f"/explain/{segment(user_id)}/{segment(item_id)}",
                    query={"at_least": at_least, "variant": variant},
                    body=body,
                )
            ),
        )

    async def history(
        self, user_id: str, *, limit: int | None = None, offset: int | None = None, at_least: int | None = None
    ) -> models.History:
        """What a user has interacted with.

        `GET /history/{user_id}`. What came since the version first, then by S(u, i).

        Args:
            limit: Most items of the answer.
            offset: Items left out at the beginning.
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
        """
        return cast(
            "models.History",
            await self._ask(
                Request(
                    "GET",
                    f"/history/{segment(user_id)}",
                    query={"limit": limit, "offset": offset, "at_least": at_least},
                )
            ),
        )

    async def describe_items(self, *, item_id: Sequence[str], at_least: int | None = None) -> models.Items:
        """Names, entities and numbers of interactions of items.

        `GET /items`. `?item_id=a&item_id=b`; ids that are unknown are listed as such.

        Args:
            item_id: External ids, one parameter each.
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
        """
        return cast(
            "models.Items", await self._ask(Request("GET", "/items", query={"item_id": item_id, "at_least": at_least}))
        )

    async def get_item(self, item_id: str, *, at_least: int | None = None) -> models.ItemOut:
        """What is known of an item.

        `GET /items/{item_id}`. Its record, and whether it can be recommended. The id is percent-encoded in the
        path.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
        """
        return cast(
            "models.ItemOut",
            await self._ask(Request("GET", f"/items/{segment(item_id)}", query={"at_least": at_least})),
        )

    async def put_item(
        self, item_id: str, body: models.ItemIn, *, idempotency_key: str | None = None
    ) -> models.ItemTaken:
        """Put an item's record: it can be recommended and filtered by at once.

        `PUT /items/{item_id}`. Answered once it is durable and applied. A withdrawn item is back. The id is
        percent-encoded in the path.

        Args:
            idempotency_key: Sent again with the same key, it counts once.
        """
        return cast(
            "models.ItemTaken",
            await self._ask(
                Request("PUT", f"/items/{segment(item_id)}", headers={"Idempotency-Key": idempotency_key}, body=body)
            ),
        )

    async def withdraw_item(self, item_id: str, *, idempotency_key: str | None = None) -> models.ItemTaken:
        """Withdraw an item: it is never recommended again, until it is put again.

        `DELETE /items/{item_id}`. Its record goes; what users did with it still says what they like. The id is
        percent-encoded in the path.

        Args:
            idempotency_key: Sent again with the same key, it counts once.
        """
        return cast(
            "models.ItemTaken",
            await self._ask(
                Request("DELETE", f"/items/{segment(item_id)}", headers={"Idempotency-Key": idempotency_key})
            ),
        )

    async def add_interactions(self, body: models.NewInteraction | models.NewInteractions) -> models.Accepted:
        """Tell what users did.

        `POST /interactions`. Answered once the interactions are on disk and applied: no list shows them from then
        on.
        """
        return cast("models.Accepted", await self._ask(Request("POST", "/interactions", body=body)))

    async def remove_interaction(
        self, *, user_id: str, item_id: str, idempotency_key: str | None = None
    ) -> models.Accepted:
        """Remove what a user did with an item.

        `DELETE /interactions`. All of the user's interactions with the item no longer count, from wherever they are
        known. Answered once that is on disk and applied: the item may be recommended to the user again.

        Args:
            user_id: External id.
            item_id: External id.
            idempotency_key: Sent again with the same key, it counts once.
        """
        return cast(
            "models.Accepted",
            await self._ask(
                Request(
                    "DELETE",
                    "/interactions",
                    query={"user_id": user_id, "item_id": item_id},
                    headers={"Idempotency-Key": idempotency_key},
                )
            ),
        )

    async def get_user(self, user_id: str, *, at_least: int | None = None) -> models.UserOut:
        """What is known of a user.

        `GET /users/{user_id}`. Its record and how much it has interacted. The id is percent-encoded in the path.

        Args:
            at_least: Wait until this sequence number of the log is applied (503 when that takes long).
        """
        return cast(
            "models.UserOut",
            await self._ask(Request("GET", f"/users/{segment(user_id)}", query={"at_least": at_least})),
        )

    async def put_user(
        self, user_id: str, body: models.UserIn, *, idempotency_key: str | None = None
    ) -> models.UserTaken:
        """Put a user's record in the place of the one before.

        `PUT /users/{user_id}`. Answered once it is durable. The id is percent-encoded in the path.

        Args:
            idempotency_key: Sent again with the same key, it counts once.
        """
        return cast(
            "models.UserTaken",
            await self._ask(
                Request("PUT", f"/users/{segment(user_id)}", headers={"Idempotency-Key": idempotency_key}, body=body)
            ),
        )

    async def erase_user(self, user_id: str) -> models.UserErased:
        """Erase a user: interactions, record and idempotency keys.

        `DELETE /users/{user_id}`. Gone from the state and the served model when it is answered. T and the items'
        vectors forget with the next refresh, artifacts with the next version: older ones are listed. Ids are
        percent-encoded in the path.
        """
        return cast("models.UserErased", await self._ask(Request("DELETE", f"/users/{segment(user_id)}")))

    async def retrain(self) -> models.RetrainAccepted:
        """Retrain with all interactions and swap the new version in.

        `POST /admin/retrain`. One job runs at a time, and one may wait. GET /admin/jobs/{job_id} tells how far it
        is.
        """
        return cast("models.RetrainAccepted", await self._ask(Request("POST", "/admin/retrain")))

    async def jobs(self) -> models.JobList:
        """Jobs, the newest first.

        `GET /admin/jobs`. The latest hundred.
        """
        return cast("models.JobList", await self._ask(Request("GET", "/admin/jobs")))

    async def job(self, job_id: str) -> models.JobAnswer:
        """One job.

        `GET /admin/jobs/{job_id}`. Where it stands, and what it published or why it failed.
        """
        return cast("models.JobAnswer", await self._ask(Request("GET", f"/admin/jobs/{segment(job_id)}")))

    async def job_log(self, job_id: str) -> models.JobLog:
        """The last words of a job's training.

        `GET /admin/jobs/{job_id}/log`. Of this moment where it runs on this machine, some seconds old where it runs
        elsewhere.
        """
        return cast("models.JobLog", await self._ask(Request("GET", f"/admin/jobs/{segment(job_id)}/log")))

    async def cancel_job(self, job_id: str) -> models.JobAnswer:
        """Cancel a job that waits or runs.

        `POST /admin/jobs/{job_id}/cancel`. Its process ends within seconds; nothing is activated. A version that is
        being put in force stays: roll back.
        """
        return cast("models.JobAnswer", await self._ask(Request("POST", f"/admin/jobs/{segment(job_id)}/cancel")))

    async def type_weights(self) -> models.TypeWeights:
        """Weights of the interaction types.

        `GET /admin/types`. How often the loss samples interactions of each type; the graph of interactions is
        binary.
        """
        return cast("models.TypeWeights", await self._ask(Request("GET", "/admin/types")))

    async def weigh_type(self, name: str, body: models.TypeWeight) -> models.TypeWeights:
        """Give a type of interaction a weight.

        `PUT /admin/types/{name}`. It counts from the next training on. The type is percent-encoded in the path.
        """
        return cast("models.TypeWeights", await self._ask(Request("PUT", f"/admin/types/{segment(name)}", body=body)))

    async def list_models(self) -> models.ModelList:
        """Versions of the store, the oldest first.

        `GET /admin/models`. Which is active, and which is served.
        """
        return cast("models.ModelList", await self._ask(Request("GET", "/admin/models")))

    async def describe_model(self, version: str) -> models.ModelDetail:
        """One version: how it was made, and its report.

        `GET /admin/models/{version}`. The report has metrics with their slices and the training's curve
        (docs/evaluation.md).
        """
        return cast("models.ModelDetail", await self._ask(Request("GET", f"/admin/models/{segment(version)}")))

    async def activate_model(self, version: str) -> models.Activated:
        """Put a version in force.

        `POST /admin/models/{version}/activate`. Answered once it is served; a version that can't be served is taken
        back.
        """
        return cast("models.Activated", await self._ask(Request("POST", f"/admin/models/{segment(version)}/activate")))

    async def rollback(self) -> models.Activated:
        """Put the version that was active before in force again.

        `POST /admin/rollback`. Answered once it is served.
        """
        return cast("models.Activated", await self._ask(Request("POST", "/admin/rollback")))

    async def experiment(self) -> models.Experiment:
        """The versions that shares of the users get.

        `GET /admin/experiment`. As this worker serves it; `name` is null where everybody gets the active version.
        """
        return cast("models.Experiment", await self._ask(Request("GET", "/admin/experiment")))

    async def put_experiment(self, body: models.NewExperiment) -> models.Experiment:
        """Give shares of the users other versions.

        `PUT /admin/experiment`. In the place of the one that runs. Answered once all is served; a canary is an
        experiment with one variant. The same users every time, by a hash of their ids; under the same name, shares
        that change move as few users as can be. Ends with the next activation or roll back.
        """
        return cast("models.Experiment", await self._ask(Request("PUT", "/admin/experiment", body=body)))

    async def end_experiment(self) -> models.Experiment:
        """Give everybody the active version.

        `DELETE /admin/experiment`. Nothing happens where no experiment runs.
        """
        return cast("models.Experiment", await self._ask(Request("DELETE", "/admin/experiment")))

    async def digest(self) -> models.Digest:
        """The names of this worker's bits, to compare workers and hosts.

        `GET /admin/digest`. Settles first, so it may take a moment. Whichever worker accepts the connection
        answers, for itself.
        """
        return cast("models.Digest", await self._ask(Request("GET", "/admin/digest")))

    async def live(self) -> models.Live:
        """Whether the process answers.

        `GET /health/live`. Always, while it runs.
        """
        return cast("models.Live", await self._ask(Request("GET", "/health/live")))

    async def ready(self) -> models.Ready:
        """Whether a model is served and follows the log.

        `GET /health/ready`. 200 while reads are answered, 503 where no model is served or it follows the log no
        more. `degraded` says that reads come from memory alone, because the log can't be read, and that writes are
        refused; or that writes fail (for a minute after the last one that did, unless one succeeds). `problem`
        tells of an active version that can't be served while an earlier one is: the status is `degraded`, too.
        """
        return cast("models.Ready", await self._ask(Request("GET", "/health/ready")))

    async def metrics(self) -> str:
        """Metrics for Prometheus.

        `GET /metrics`. Prometheus' text format.
        """
        return cast("str", await self._ask(Request("GET", "/metrics", text=True)))

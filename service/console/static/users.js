// A user: history and recommendations.

import { useState } from "./vendor/hooks.mjs";
import { api } from "./api.js";
import { Answer, Heading, html, number, Table, titled, to, useAnswer, variantOf } from "./ui.js";

const STRATEGY = {
  model: "trained with this user",
  fold_in: "the user is newer than the version",
  popular: "the most interactions",
};
const PAGE = 25;

export function UsersPage({ user }) {
  const look = (event) => {
    event.preventDefault();
    const name = event.target.elements.user.value;
    if (name) location.hash = to("users", name);
  };
  return html`
    <${Heading} title=${user ? `User ${user}` : "Users"}>${user ? html`User <code>${user}</code>` : "Look up a user"}<//>
    <form class="lookup" role="search" onSubmit=${look}>
      <label for="user">User id</label>
      <input id="user" name="user" value=${user} autocomplete="off" spellcheck="false" required />
      <button type="submit">Look up</button>
    </form>
    ${user
      ? html`<div class="columns">
          <${Recommendations} user=${user} />
          <${History} user=${user} />
        </div>`
      : html`<p class="note">
          The id is your own, as in the interactions. An unknown user is recommended what is popular.
        </p>`}
  `;
}

/** A list with the items' names, which the lists themselves don't have. */
async function recommendations(user, k) {
  const list = await api.recommend(user, k);
  const ids = list.items.map((item) => item.item_id);
  const known = ids.length ? (await api.items(ids)).items : [];
  const names = new Map(known.map((item) => [item.item_id, item.name]));
  return { ...list, items: list.items.map((item) => ({ ...item, name: names.get(item.item_id) })) };
}

function Recommendations({ user }) {
  const [k, setK] = useState(10);
  const answer = useAnswer(() => recommendations(user, k), [user, k]);
  return html`<section aria-labelledby="recommended">
    <div class="head">
      <h2 id="recommended">Recommendations</h2>
      <label>
        <span>Show</span>
        <select value=${k} onChange=${(event) => setK(Number(event.target.value))}>
          ${[10, 20, 50].map((n) => html`<option value=${n}>${n}</option>`)}
        </select>
      </label>
    </div>
    <${Answer} of=${answer}>
      ${(list) => html`
        <${Table}
          caption="Recommendations, the best first"
          rows=${list.items}
          row=${(item) => item.item_id}
          columns=${[
            { head: "#", numeric: true, cell: (_, n) => n + 1 },
            {
              head: "Item",
              cell: (item) =>
                item.strategy === "popular"
                  ? html`${titled(item)} <small><code>${item.item_id}</code></small>`
                  : html`<a href=${to("users", user, "items", item.item_id, list.recommendation_id)}>${titled(item)}</a>
                      ${" "}<small><code>${item.item_id}</code></small>`,
            },
            { head: "Score", numeric: true, cell: (item) => number(item.score) },
            {
              head: "How",
              cell: (item) => html`<span class="tag" title=${STRATEGY[item.strategy]}>${item.strategy}</span>`,
            },
          ]}
        />
        <${AnyItem} user=${user} />
        <p class="note">
          Version ${list.model_version}${variantOf(list)}, interactions up to ${number(list.sequence)}, item vectors as of
          ${" "}${number(list.refreshed_at)}.
        </p>
      `}
    <//>
  </section>`;
}

/** Why an item is not in the list, or where it stands. */
function AnyItem({ user }) {
  const look = (event) => {
    event.preventDefault();
    location.hash = to("users", user, "items", event.target.elements.wanted.value);
  };
  return html`<form class="lookup" onSubmit=${look}>
    <label for="item">Why, or why not, item</label>
    <input id="item" name="wanted" autocomplete="off" spellcheck="false" required />
    <button type="submit" class="plain">Explain</button>
  </form>`;
}

function History({ user }) {
  const [offset, setOffset] = useState(0);
  const answer = useAnswer(() => api.history(user, PAGE, offset), [user, offset]);
  return html`<section aria-labelledby="history">
    <div class="head"><h2 id="history">History</h2></div>
    ${answer.error?.code === "unknown_user"
      ? html`<p class="empty">Nobody has seen this user yet: no interaction, and in no version.</p>`
      : html`<${Answer} of=${answer}>
          ${(found) => html`
            <${Table}
              caption="Items of the history"
              rows=${found.items}
              row=${(item) => item.item_id}
              empty="No interactions."
              columns=${[
                {
                  head: "Item",
                  cell: (item) => html`<a href=${to("users", user, "items", item.item_id)}>${titled(item)}</a>
                    ${" "}<small><code>${item.item_id}</code></small>`,
                },
                { head: "Attention S", numeric: true, cell: (item) => number(item.similarity, 3) },
                { head: "Users", numeric: true, cell: (item) => number(item.n_interactions) },
                {
                  head: "Since",
                  cell: (item) =>
                    item.source === "log"
                      ? html`<span class="tag new">new</span>`
                      : html`<span class="tag">version</span>`,
                },
              ]}
            />
            <p class="note">Version ${found.model_version}${variantOf(found)}.</p>
            ${found.n_items > PAGE &&
            html`<div class="pager">
              <button class="plain" disabled=${offset === 0} onClick=${() => setOffset(Math.max(0, offset - PAGE))}>
                Earlier part
              </button>
              <span role="status">
                ${offset + 1} to ${Math.min(offset + PAGE, found.n_items)} of ${number(found.n_items)}
              </span>
              <button
                class="plain"
                disabled=${offset + PAGE >= found.n_items}
                onClick=${() => setOffset(offset + PAGE)}
              >
                Next part
              </button>
            </div>`}
          `}
        <//>`}
  </section>`;
}

// Why a user gets an item: the score as a sum, what each part adds, and the small graph behind it.

import { useState } from "./vendor/hooks.mjs";
import { api } from "./api.js";
import { Graph } from "./graph.js";
import { Reasons } from "./reasons.js";
import { Answer, Facts, Heading, html, number, percent, Table, titled, to, useAnswer, variantOf } from "./ui.js";

const PARTS = ["link", "attention", "direct"];
const SHOWN = 10;
// Items of the user's in the graph, and entities of the item's.
const IN_GRAPH = 6;

/** The explanation, with the entities of the items that count most. */
async function explained(user, item, recommendation) {
  const query = { parts: "reasons", recommendation_id: recommendation || undefined };
  const found = await api.explain(user, item, query);
  const ids = [item, ...found.contributions.slice(0, IN_GRAPH).map((part) => part.item_id)];
  const { items } = await api.items(ids);
  const entities = new Map(items.map((one) => [one.item_id, one.entities]));
  return { ...found, entities };
}

export function ExplanationPage({ user, item, recommendation }) {
  const answer = useAnswer(() => explained(user, item, recommendation), [user, item, recommendation]);
  return html`
    <${Heading} title=${`Why ${item} for ${user}`}>
      Why ${answer.value?.name ? html`<em>${answer.value.name}</em>` : html`<code>${item}</code>`} for${" "}
      <code>${user}</code>
    <//>
    <p><a href=${to("users", user)}>Back to ${user}</a></p>
    ${answer.error?.code === "gone" &&
    html`<p><a href=${to("users", user, "items", item)}>Explain the score of now instead</a></p>`}
    <${Answer} of=${answer}>
      ${(found) => html`
        <${Account} found=${found} served=${Boolean(recommendation)} />
        <${Reasons} user=${user} item=${item} recommendation=${recommendation} />
        ${found.reasons && html`<${ItemSide} reasons=${found.reasons} />`}
      `}
    <//>
  `;
}

function Account({ found, served }) {
  const parts = found.contributions;
  return html`
    <p class="sentence">${found.sentence}</p>
    <${Facts}
      of=${{
        Score: number(found.score),
        Rank: found.rank === null ? "not ranked" : number(found.rank),
        Strategy: found.strategy,
        Version: `${found.model_version}${variantOf(found)}`,
        "Log up to": found.sequence,
        Moment: served ? "as the list was served" : "now",
      }}
    />
    <section aria-labelledby="parts">
      <h2 id="parts">What adds up to the score</h2>
      <${Bars} found=${found} />
      <p class="note">
        ${number(found.self)} (the user's own vector) + ${number(found.sum - found.self)} (${number(parts.length)}
        ${" "}${parts.length === 1 ? "item" : "items"}) = ${number(found.sum)}; the served score differs by
        ${" "}${found.additivity_error.toExponential(1)} of the parts' size.
      </p>
    </section>
    <section aria-labelledby="graph">
      <h2 id="graph">The paths behind it</h2>
      <${Graph} found=${found} most=${IN_GRAPH} />
    </section>
  `;
}

/** One row for the user's own vector and for each item: link, attention and direct as parts of a bar around 0. */
function Bars({ found }) {
  const [all, setAll] = useState(false);
  const own = { own: true, contribution: found.self, share: found.self_share };
  const rows = [own, ...(all ? found.contributions : found.contributions.slice(0, SHOWN))];
  const scale = scaleOf(rows);
  return html`
    <ul class="legend">
      <li><span class="swatch own"></span>own vector</li>
      ${PARTS.map((part) => html`<li><span class=${`swatch ${part}`}></span>${part}</li>`)}
    </ul>
    <${Table}
      caption="Parts of the score, the largest first"
      rows=${rows}
      row=${(row) => (row.own ? "" : `i${row.item_id}`)}
      columns=${[
        {
          head: "From",
          cell: (row) =>
            row.own
              ? html`<em>the user's own vector</em>`
              : html`${titled(row)} <small><code>${row.item_id}</code></small>`,
        },
        { head: "Picture", cell: (row) => html`<${Bar} row=${row} scale=${scale} />` },
        { head: "Adds", numeric: true, cell: (row) => number(row.contribution) },
        { head: "Share", numeric: true, cell: (row) => percent(row.share) },
        ...PARTS.map((part) => ({ head: part, numeric: true, cell: (row) => (row.own ? "–" : number(row[part], 3)) })),
        { head: "S", numeric: true, cell: (row) => (row.own ? "–" : number(row.similarity, 3)) },
      ]}
    />
    ${found.contributions.length > SHOWN &&
    html`<button class="plain" aria-expanded=${all} onClick=${() => setAll(!all)}>
      ${all ? "Show the largest alone" : `Show all ${found.contributions.length} items`}
    </button>`}
  `;
}

/** Names and values of a row's parts. */
function partsOf(row) {
  return row.own ? [["own", row.contribution]] : PARTS.map((part) => [part, row[part]]);
}

/** How far a row's bar goes to the left and to the right. */
function sides(row) {
  const sum = (sign) => partsOf(row).reduce((total, [, value]) => total + Math.max(sign * value, 0), 0);
  return [sum(-1), sum(1)];
}

/** One scale for all rows, so that their bars can be compared: where 0 is, and how wide a unit is, of 200. */
function scaleOf(rows) {
  const left = Math.max(...rows.map((row) => sides(row)[0]));
  const right = Math.max(...rows.map((row) => sides(row)[1]));
  const unit = 198 / Math.max(left + right, 1e-12);
  return { zero: 1 + left * unit, unit };
}

function Bar({ row, scale }) {
  let [left, right] = [scale.zero, scale.zero];
  const rects = partsOf(row).map(([name, value]) => {
    const width = Math.abs(value) * scale.unit;
    const x = value < 0 ? left - width : right;
    if (value < 0) left -= width;
    else right += width;
    return html`<rect class=${name} x=${x} y="3" width=${width} height="14" />`;
  });
  return html`<svg class="bar" viewBox="0 0 200 20" preserveAspectRatio="none" aria-hidden="true">
    <line x1=${scale.zero} x2=${scale.zero} y1="0" y2="20" />
    ${rects}
  </svg>`;
}

/** The whole score once more, by what describes the item. */
function ItemSide({ reasons }) {
  const rows = [
    { name: "the item's own vector", contribution: reasons.own },
    ...reasons.entities,
    { name: "what its users and their items pass on", contribution: reasons.rest },
    { name: "direct, from item to item", contribution: reasons.direct },
  ].map((row) => ({ ...row, own: true }));
  const scale = scaleOf(rows);
  return html`<section aria-labelledby="side">
    <h2 id="side">The same from the item's side</h2>
    <${Table}
      caption="The item's own vector, its entities and the rest"
      rows=${rows}
      row=${(_, n) => n}
      columns=${[
        {
          head: "From",
          cell: (row) => (row.relation ? html`<small>${row.relation}</small> ${row.name}` : html`<em>${row.name}</em>`),
        },
        { head: "Picture", cell: (row) => html`<${Bar} row=${row} scale=${scale} />` },
        { head: "Adds", numeric: true, cell: (row) => number(row.contribution) },
        {
          head: "Shared with the user's",
          cell: (row) =>
            row.items?.length
              ? row.items.map(titled).join(", ") + (row.n_items > row.items.length ? ", …" : "")
              : "–",
        },
      ]}
    />
    <p class="note">Together ${number(reasons.sum)}, the score.</p>
  </section>`;
}

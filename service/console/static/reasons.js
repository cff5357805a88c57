// What goes beyond the sum: the place in the list, what it rests on, what would change it, the paths in two layers.

import { useState } from "./vendor/hooks.mjs";
import { api } from "./api.js";
import { Answer, html, number, Table, titled, to, useAnswer } from "./ui.js";

const RULES = {
  outranked: "others score higher",
  seen: "the user has met it",
  withdrawn: "it is withdrawn",
  no_vector: "nothing is known of it yet, so that it stands at the list's end",
  no_evidence: "nothing is known of the user, so the list is by popularity",
};
const NONE = {
  not_in_list: "It is in the list for its number of users: no interaction of this user's holds it there.",
  none_exists: "Without any of the user's interactions it stays in the list: every set was tried.",
  none_found: "No such set was found within the search's limit.",
};

/** Names with links to their own explanations, as a sentence's part. */
function Named({ items, user }) {
  return items.map(
    (item, n) =>
      html`${n > 0 && (n === items.length - 1 ? " and " : ", ")}<a href=${to("users", user, "items", item.item_id)}
          >${titled(item)}</a
        >`,
  );
}

export function Reasons({ user, item, recommendation }) {
  const [k, setK] = useState(20);
  const answer = useAnswer(
    () =>
      api.explain(user, item, { parts: "paths,counterfactual,why_not", k, recommendation_id: recommendation || undefined }),
    [user, item, k, recommendation],
  );
  return html`<section aria-labelledby="place">
    <div class="head">
      <h2 id="place">The place in the list</h2>
      <label>
        <span>Of the best</span>
        <select value=${k} onChange=${(event) => setK(Number(event.target.value))}>
          ${[5, 10, 20, 50].map((n) => html`<option value=${n}>${n}</option>`)}
        </select>
      </label>
    </div>
    <${Answer} of=${answer}>
      ${(found) => html`
        ${found.why_not.in_list
          ? html`<${Counterfactual} found=${found} user=${user} />`
          : html`<${WhyNot} found=${found} user=${user} />`}
        ${found.paths?.items.length > 0 && html`<${Paths} paths=${found.paths} />`}
      `}
    <//>
  </section>`;
}

function Counterfactual({ found, user }) {
  const { counterfactual } = found;
  if (!counterfactual.found) return html`<p>${NONE[counterfactual.why]}</p>`;
  return html`<p class="counterfactual">
      It is there because of <${Named} items=${counterfactual.removed} user=${user} />: without
      ${counterfactual.removed.length > 1 ? " all of these" : " this one"} it leaves the best ${counterfactual.k}
      ${counterfactual.rank !== null && ` (rank ${number(counterfactual.rank)}, score ${number(counterfactual.score)})`}.
    </p>
    ${counterfactual.replaced_by.length > 0 &&
    html`<p>In its place come <${Named} items=${counterfactual.replaced_by} user=${user} />.</p>`}
    <p class="note">
      Verified by removing them from a copy and ranking again (${number(counterfactual.tried)} removals tried); none of them
      can be left out.
    </p>`;
}

function WhyNot({ found, user }) {
  const { why_not: why } = found;
  return html`<p class="why-not">
      It is not among the best ${why.k}: ${why.rules.map((rule) => RULES[rule] || rule).join("; ")}.
      ${why.rank !== null && ` Its rank is ${number(why.rank)}.`}
      ${why.margin !== null &&
      ` Its score is ${number(Math.abs(why.margin))} ${why.margin < 0 ? "below" : "above"} the last one's (${number(why.cutoff)}).`}
    </p>
    ${why.addition?.found &&
    html`<p>An interaction with <${Named} items=${why.addition.items} user=${user} /> would bring it in, at rank
      ${` ${number(why.addition.rank)}`}.</p>`}
    ${why.addition &&
    !why.addition.found &&
    html`<p class="note">No ${number(why.addition.most)} interactions that were tried would bring it in.</p>`}`;
}

/** By whom link and attention come about, in numbers of users: their ids are not this page's business. */
function Paths({ paths }) {
  return html`<h3>By whom link and attention come about</h3>
    <${Table}
      caption="Paths in two layers"
      rows=${paths.items}
      row=${(path) => path.item_id}
      columns=${[
        { head: "From", cell: (path) => titled(path) },
        { head: "Itself", numeric: true, cell: (path) => number(path.own, 3) },
        { head: "By its users", numeric: true, cell: (path) => number(path.sum - path.own, 3) },
        { head: "Users", numeric: true, cell: (path) => number(path.n_users) },
        {
          head: "Of the first five, met this item",
          numeric: true,
          cell: (path) => `${path.users.filter((one) => one.met_item).length} of ${path.users.length}`,
        },
      ]}
    />`;
}

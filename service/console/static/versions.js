// The store's versions: metrics, curves, activation, rollback, the experiment.

import { useRef, useState } from "./vendor/hooks.mjs";
import { api } from "./api.js";
import { Chart } from "./chart.js";
import { Answer, Facts, Heading, html, moment, number, percent, Problem, Table, tellServed, to, useAnswer } from "./ui.js";

const CUTS = [5, 10, 20];
const METRICS = ["recall", "ndcg", "precision", "hit_rate", "mrr", "coverage", "gini", "novelty", "popularity_lift"];

/**
 * A version's own figure, undefined where it has none. A retrained one carries its ancestor's validation figures: its own
 * are those of its trial.
 */
const figure = (version, name) => {
  const { trial, selected_as: ancestor, valid } = version.metrics ?? {};
  return (trial ? trial.valid : ancestor ? undefined : valid)?.[name];
};

/** Changes which version is in force, after a question. */
function Change({ label, question, act, onDone, plain }) {
  const dialog = useRef(null);
  const [state, setState] = useState({ busy: false, error: null });
  const go = async () => {
    setState({ busy: true, error: null });
    try {
      await act();
      dialog.current.close();
      setState({ busy: false, error: null });
      onDone();
    } catch (error) {
      setState({ busy: false, error });
    }
  };
  return html`<button class=${plain ? "plain" : ""} onClick=${() => dialog.current.showModal()}>${label}</button>
    <dialog ref=${dialog} aria-label=${label} onClose=${() => setState({ busy: false, error: null })}>
      <p>${question}</p>
      <${Problem} error=${state.error} />
      <div class="buttons">
        <button disabled=${state.busy} onClick=${go}>${state.busy ? "Working …" : label}</button>
        <button class="plain" onClick=${() => dialog.current.close()}>Cancel</button>
      </div>
    </dialog>`;
}

function State({ version }) {
  return html`${version.active && html`<span class="badge good">active</span>`}${" "}
    ${version.variants.map((name) => html`<span key=${name} class="badge">variant ${name}</span> `)}
    ${version.serving && !version.active && html`<span class="badge">serving</span>`}
    ${version.active && !version.serving && html`<span class="badge bad">not served</span>`}
    ${version.error && html`<span class="badge bad" title=${version.error}>damaged</span>`}`;
}

/** Who gets which version, where an experiment runs. */
function Experiment({ experiment, onEnd }) {
  if (experiment.name === null) return null;
  return html`<section aria-labelledby="experiment">
    <h2 id="experiment">Experiment <code>${experiment.name}</code></h2>
    <${Table}
      caption="Variants of the experiment"
      rows=${experiment.variants}
      row=${(variant) => variant.name}
      columns=${[
        { head: "Variant", cell: (v) => v.name },
        { head: "Version", cell: (v) => html`<a href=${to("versions", v.version)}>${v.version}</a>` },
        { head: "Users", numeric: true, cell: (v) => `${number(100 * v.share)} %` },
        {
          head: "State",
          cell: (v) =>
            v.served
              ? html`<span class="badge good">served</span>`
              : html`<span class="badge bad">not served</span>${v.problem && html` <small>${v.problem}</small>`}`,
        },
      ]}
    />
    <p class="note">
      The users of a variant that is not served get the active version. Activating a version, or rolling back, ends the
      experiment.
    </p>
    <p>
      <${Change}
        label="End the experiment"
        question=${`Give everybody ${experiment.variants[0].version}, the active version?`}
        act=${api.endExperiment}
        onDone=${onEnd}
      />
    </p>
  </section>`;
}

/** The versions, and what is tried out beside the active one: nothing while no version is served. */
async function versions() {
  const none = (error) => {
    if (error.code !== "not_ready") throw error;
    return { name: null, variants: [] };
  };
  const [listed, experiment] = await Promise.all([api.models(), api.experiment().catch(none)]);
  return { ...listed, experiment };
}

export function VersionsPage() {
  const answer = useAnswer(versions, []);
  const [said, setSaid] = useState("");
  const done = (text) => () => {
    setSaid(text);
    tellServed();
    answer.again();
  };
  return html`
    <${Heading} title="Versions">Versions<//>
    <p role="status" class="said">${said}</p>
    <${Answer} of=${answer}>
      ${({ models, problem, experiment }) => {
        const previous = models.find((version) => version.previous);
        return html`
          ${problem && html`<p class="problem" role="alert">${problem}</p>`}
          <${Experiment} experiment=${experiment} onEnd=${done("The experiment has ended.")} />
          ${previous &&
          html`<p>
            <${Change}
              label=${`Roll back to ${previous.version}`}
              question=${`Put ${previous.version}, which was active before, in force again?`}
              act=${api.rollback}
              onDone=${done(`${previous.version} is in force again.`)}
            />
          </p>`}
          <${Table}
            caption="Versions, the newest first"
            rows=${models.toReversed()}
            row=${(version) => version.version}
            empty="No version yet: kdiffe train publishes one."
            columns=${[
              { head: "Version", cell: (v) => html`<a href=${to("versions", v.version)}>${v.version}</a>` },
              { head: "State", cell: (v) => html`<${State} version=${v} />` },
              { head: "NDCG@20", numeric: true, cell: (v) => number(figure(v, "ndcg@20")) },
              { head: "Recall@20", numeric: true, cell: (v) => number(figure(v, "recall@20")) },
              { head: "Model", cell: (v) => v.model || "–" },
              { head: "Users", numeric: true, cell: (v) => number(v.n_users) },
              { head: "Items", numeric: true, cell: (v) => number(v.n_items) },
              { head: "Log up to", numeric: true, cell: (v) => number(v.sequence) },
              { head: "Made", cell: (v) => html`${moment(v.created_at)}${v.base && html` <small>from ${v.base}</small>`}` },
              {
                head: "Action",
                cell: (v) =>
                  v.active || v.error
                    ? "–"
                    : html`<${Change}
                        plain
                        label=${`Activate ${v.version}`}
                        question=${`Put ${v.version} in force? Requests go on meanwhile.`}
                        act=${() => api.activate(v.version)}
                        onDone=${done(`${v.version} is in force.`)}
                      />`,
              },
            ]}
          />
          <p class="note">Figures are of the validation split, as the version is served.</p>
        `;
      }}
    <//>
  `;
}

export function VersionPage({ version }) {
  const answer = useAnswer(() => api.model(version), [version]);
  return html`
    <${Heading} title=${`Version ${version}`}>Version <code>${version}</code><//>
    <p><a href=${to("versions")}>All versions</a></p>
    <${Answer} of=${answer}>
      ${(found) => html`
        <p><${State} version=${found} /></p>
        <${Facts}
          of=${{
            Model: found.model,
            Made: moment(found.created_at),
            "Retrained from": found.base,
            Users: found.n_users,
            Items: found.n_items,
            Interactions: found.n_interactions,
            "Log up to": found.sequence,
            Data: found.data.name,
          }}
        />
        ${found.report ? html`<${Report} report=${found.report} />` : html`<p class="empty">It has no report.</p>`}
      `}
    <//>
  `;
}

function Report({ report }) {
  const { curve, refit, validation, explanations, model, machine } = report;
  return html`
    ${curve && html`<${Curves} title=${refit ? "The fit that was selected" : "The fit"} curve=${curve} />`}
    ${refit?.curve && html`<${Curves} title="The refit on everything" curve=${refit.curve} />`}
    ${validation && html`<${Validation} validation=${validation} />`}
    ${explanations?.n_recommendations > 0 &&
    html`<section>
      <h2>What explanations are made of</h2>
      <${Facts}
        of=${Object.fromEntries(
          ["self", "link", "attention", "direct"].map((part) => [part, percent(explanations[part] ?? 0)]),
        )}
      />
      <p class="note">
        Mean shares over ${number(explanations.n_recommendations)} recommendations of ${number(explanations.n_users)}
        ${" "}users; direct is what B adds.
      </p>
    </section>`}
    <section>
      <h2>How it was made</h2>
      <${Facts}
        of=${{
          Width: model?.width,
          Views: model?.views?.join(", "),
          Triplets: model?.triplets,
          Entities: model?.entities,
          "Weight of B": model?.table_weight,
          Processor: machine?.cpu,
          Device: machine?.device,
          "Time of the run": machine && `${number(machine.seconds)} s`,
        }}
      />
    </section>
  `;
}

/** Loss, and the selected metric where it was evaluated. */
function Curves({ title, curve }) {
  const epochs = curve.epochs || [];
  if (epochs.length === 0) return null;
  const x = { name: "epoch", values: epochs.map((epoch) => epoch.epoch) };
  const names = [...new Set(epochs.flatMap((epoch) => Object.keys(epoch.metrics || {})))].filter((name) =>
    /^(ndcg|recall)@20$/.test(name),
  );
  return html`<section>
    <h2>${title}</h2>
    <p class="note">
      ${number(epochs.length)} epochs${curve.best_epoch ? `; epoch ${curve.best_epoch} was kept by ${curve.selected_by}` : ""}.
    </p>
    <div class="columns">
      <${Chart} title="Loss" x=${x} series=${[{ name: "loss", values: epochs.map((epoch) => epoch.loss ?? null) }]} />
      ${names.length > 0 &&
      html`<${Chart}
        title="Validation, without B"
        x=${x}
        series=${names.map((name) => ({ name, values: epochs.map((epoch) => epoch.metrics?.[name] ?? null) }))}
      />`}
    </div>
  </section>`;
}

function Validation({ validation }) {
  const kinds = [["served", "as served"]];
  if (validation.without_table) kinds.push(["without_table", "without B"]);
  const rows = METRICS.filter((name) => validation.served?.[`${name}@20`] !== undefined);
  return html`<section>
    <h2>Validation</h2>
    <${Table}
      caption="Metrics on the validation split"
      rows=${rows}
      row=${(name) => name}
      columns=${[
        { head: "Metric", cell: (name) => name.replaceAll("_", " ") },
        ...kinds.flatMap(([kind, title]) =>
          CUTS.map((cut) => ({
            head: `@${cut} ${title}`,
            numeric: true,
            cell: (name) => number(validation[kind]?.[`${name}@${cut}`]),
          })),
        ),
      ]}
    />
  </section>`;
}

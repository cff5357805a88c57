// The service's own state: what it serves, how fresh it is, how much it is asked, what goes wrong.

import { useEffect, useRef, useState } from "./vendor/hooks.mjs";
import { api } from "./api.js";
import { Chart } from "./chart.js";
import { by, parse, quantile, sum } from "./metrics.js";
import { Answer, Facts, Heading, html, number, Problem, Table, useAnswer, useEvery } from "./ui.js";

const SECONDS = 5;
// Samples that are kept: ten minutes.
const KEPT = 120;

export function ServicePage() {
  const answer = useAnswer(async () => ({ at: Date.now() / 1000, metrics: parse(await api.metrics()) }), []);
  const ready = useAnswer(api.ready, []);
  const [samples, setSamples] = useState([]);
  useEffect(() => {
    if (answer.value) setSamples((before) => [...before, answer.value].slice(-KEPT));
  }, [answer.value]);
  useEvery(SECONDS, () => {
    answer.again();
    ready.again();
  });
  return html`
    <${Heading} title="Service">Service<//>
    <${Problem} error=${ready.error} />
    ${ready.value?.problem && html`<p class="problem" role="alert">${ready.value.problem}</p>`}
    <${Answer} of=${answer}>
      ${({ metrics }) => html`
        <${Freshness} metrics=${metrics} />
        <${Rates} samples=${samples} />
        <${Routes} metrics=${metrics} samples=${samples} />
        <${Lists} metrics=${metrics} samples=${samples} />
        <${Errors} metrics=${metrics} />
      `}
    <//>
    <p class="note">Looked at every ${SECONDS} s while this page is in sight; its own requests are counted, too.</p>
  `;
}

/** The first value of a metric, undefined where there is none. */
const value = (metrics, name) => metrics.get(name)?.[0]?.value;

function Freshness({ metrics }) {
  const info = metrics.get("kdiffe_model_info")?.find((one) => one.value > 0)?.labels;
  const last = value(metrics, "kdiffe_state_sequence");
  const applied = value(metrics, "kdiffe_applied_sequence");
  const settled = value(metrics, "kdiffe_settled_sequence");
  return html`<section aria-labelledby="freshness">
    <h2 id="freshness">State and freshness</h2>
    <${Facts}
      of=${{
        Version: info ? `${info.version} (${info.model})` : "none",
        ...Object.fromEntries(
          (metrics.get("kdiffe_variant_share") || [])
            .filter((one) => one.value > 0) // workers that served one that has ended still tell of it
            .map(({ labels, value: share }) => [`Variant ${labels.variant}`, `${labels.version}, ${number(100 * share)} %`]),
        ),
        "Log ends at": last,
        "Applied up to": applied,
        "Settled up to": settled,
        "Item vectors as of": value(metrics, "kdiffe_refreshed_sequence"),
        "Lag of settling": `${number(value(metrics, "kdiffe_settle_lag_seconds") ?? 0, 3)} s`,
        "Stale nodes": value(metrics, "kdiffe_stale_nodes"),
        ...Object.fromEntries(
          [...by(metrics, "kdiffe_queue_depth", "queue")].map(([queue, depth]) => [`Waiting: ${queue}`, depth]),
        ),
        Index: metrics.get("kdiffe_index_info")?.find((one) => one.value > 0)?.labels.index,
        Users: value(metrics, "kdiffe_users"),
        Items: value(metrics, "kdiffe_items"),
        "Versions swapped in": sum(metrics, "kdiffe_model_swaps_total"),
      }}
    />
  </section>`;
}

/** Requests and errors a second between two samples. */
function Rates({ samples }) {
  const differences = samples.slice(1).map((now, n) => ({ now, before: samples[n], seconds: now.at - samples[n].at }));
  const rate = (labels) =>
    differences.map(({ now, before, seconds }) =>
      Math.max(0, sum(now.metrics, "kdiffe_requests_total", labels) - sum(before.metrics, "kdiffe_requests_total", labels)) /
      seconds,
    );
  // One array while nothing has changed, so that the chart is drawn anew with a new sample alone.
  const kept = useRef({ of: null });
  if (kept.current.of !== samples) {
    kept.current = {
      of: samples,
      x: { name: "time", time: true, values: differences.map(({ now }) => now.at) },
      series: [
        { name: "requests/s", values: rate() },
        { name: "errors/s", values: rate((labels) => Number(labels.status) >= 500) },
      ],
    };
  }
  return html`<section aria-labelledby="rates">
    <h2 id="rates">Requests</h2>
    ${samples.length < 2
      ? html`<p class="note" role="status">Rates appear after ${SECONDS} seconds.</p>`
      : html`<${Chart} title="Requests and errors a second" x=${kept.current.x} series=${kept.current.series} />`}
  </section>`;
}

function Routes({ metrics, samples }) {
  const first = samples[0];
  const last = samples.at(-1);
  const seconds = last && first ? last.at - first.at : 0;
  const totals = by(metrics, "kdiffe_requests_total", "route");
  const before = first ? by(first.metrics, "kdiffe_requests_total", "route") : new Map();
  const errors = by(metrics, "kdiffe_requests_total", "route", (labels) => Number(labels.status) >= 500);
  const rows = [...totals].sort((a, b) => b[1] - a[1]).map(([route, count]) => ({ route, count }));
  const time = (route, share) => {
    const found = quantile(metrics, "kdiffe_request_seconds_bucket", route, share);
    return found === undefined ? "–" : `${number(found * 1000, 2)} ms`;
  };
  return html`<${Table}
    caption="Requests by route"
    rows=${rows}
    row=${(row) => row.route}
    columns=${[
      { head: "Route", cell: (row) => html`<code>${row.route}</code>` },
      { head: "All", numeric: true, cell: (row) => number(row.count) },
      {
        head: "A second",
        numeric: true,
        cell: (row) => (seconds > 0 ? number((row.count - (before.get(row.route) || 0)) / seconds, 2) : "–"),
      },
      { head: "Errors (5xx)", numeric: true, cell: (row) => number(errors.get(row.route) || 0) },
      { head: "Median", numeric: true, cell: (row) => time(row.route, 0.5) },
      { head: "99 %", numeric: true, cell: (row) => time(row.route, 0.99) },
    ]}
  />`;
}

/** Which versions make the lists: those of the active one and of each variant of an experiment. */
function Lists({ metrics, samples }) {
  const [first, last] = [samples[0], samples.at(-1)];
  const seconds = last && first ? last.at - first.at : 0;
  const wanted = ({ version, variant }) => (labels) => labels.version === version && labels.variant === variant;
  const all = (metrics.get("kdiffe_lists_total") || []).map(({ labels }) => [`${labels.version} ${labels.variant}`, labels]);
  const count = (from, row) => sum(from, "kdiffe_lists_total", wanted(row));
  return html`<section aria-labelledby="lists">
    <h2 id="lists">Lists</h2>
    <${Table}
      caption="Lists by version and variant"
      rows=${[...new Map(all).values()]}
      row=${(row) => `${row.version} ${row.variant}`}
      empty="None yet."
      columns=${[
        { head: "Version", cell: (row) => row.version },
        { head: "Variant", cell: (row) => (row.variant === "forced" ? "named by the request" : row.variant) },
        { head: "All", numeric: true, cell: (row) => number(count(metrics, row)) },
        {
          head: "A second",
          numeric: true,
          cell: (row) => (seconds > 0 ? number((count(last.metrics, row) - count(first.metrics, row)) / seconds, 2) : "–"),
        },
      ]}
    />
  </section>`;
}

function Errors({ metrics }) {
  const rows = (metrics.get("kdiffe_requests_total") || [])
    .filter(({ labels }) => Number(labels.status) >= 400)
    .sort((a, b) => b.value - a.value);
  return html`<section aria-labelledby="errors">
    <h2 id="errors">Errors since the start</h2>
    <${Table}
      caption="Answers with an error"
      rows=${rows}
      row=${({ labels }) => `${labels.method} ${labels.route} ${labels.status}`}
      empty="None."
      columns=${[
        { head: "Route", cell: ({ labels }) => html`<code>${labels.method} ${labels.route}</code>` },
        { head: "Status", numeric: true, cell: ({ labels }) => labels.status },
        { head: "Times", numeric: true, cell: (one) => number(one.value) },
      ]}
    />
  </section>`;
}

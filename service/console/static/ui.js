// What every page uses: html`…` (htm over Preact), numbers and times as text, loading and errors, tables.

import { h } from "./vendor/preact.mjs";
import { useCallback, useEffect, useRef, useState } from "./vendor/hooks.mjs";
import htm from "./vendor/htm.mjs";

export const html = htm.bind(h);

/** A number with a few significant digits, "–" where there is none. */
export function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return Math.abs(value) >= 10000 || Number.isInteger(value)
    ? Math.round(value).toLocaleString("en")
    : String(Number(value.toPrecision(digits)));
}

/** A share as per cent. */
export function percent(share) {
  return `${(100 * share).toFixed(Math.abs(share) < 0.0995 ? 1 : 0)} %`;
}

/** A time, given in seconds since 1970 or as ISO 8601, in the reader's zone. */
export function moment(value) {
  if (value === null || value === undefined) return "–";
  return new Date(typeof value === "number" ? value * 1000 : value).toLocaleString();
}

/** An item's name, its id where it has none. */
export function titled(item) {
  return item.name || item.item_id;
}

/** What made an answer, behind its version, where it was not the active one: the experiment's variant. */
export function variantOf({ variant }) {
  return variant && variant !== "main" ? ` (variant ${variant})` : "";
}

/** An entity's name, without the relation that many graphs put before it. */
export function entityName({ relation, entity }) {
  const before = `${relation}:`;
  return entity.startsWith(before) && entity.length > before.length ? entity.slice(before.length) : entity;
}

/** A link inside of the console: `to("users", user)`. */
export function to(...parts) {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

/**
 * What a request gives: `{value, error, loading, again}`. Asked again when one of `inputs` changes; the answer to a
 * question that is no longer asked is dropped.
 */
export function useAnswer(ask, inputs) {
  const [state, setState] = useState({ value: null, error: null, loading: true });
  const asked = useRef(0);
  const again = useCallback(() => {
    const mine = ++asked.current;
    setState((before) => ({ ...before, loading: true }));
    return ask().then(
      (value) => mine === asked.current && setState({ value, error: null, loading: false }),
      (error) => mine === asked.current && setState({ value: null, error, loading: false }),
    );
  }, inputs);
  useEffect(() => {
    again();
    return () => {
      asked.current += 1;
    };
  }, [again]);
  return { ...state, again };
}

/** Calls `act` every `seconds` while the page is visible and `active` holds. */
export function useEvery(seconds, act, active = true) {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    if (!active) return undefined;
    const timer = setInterval(() => document.hidden || latest.current(), seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds, active]);
}

/** Tell whoever shows what is served that it may be another version now. */
export function tellServed() {
  dispatchEvent(new Event("served"));
}

/** An error as the service words it. */
export function Problem({ error }) {
  if (!error) return null;
  return html`<p class="problem" role="alert">
    <strong>${error.code ? error.code.replaceAll("_", " ") : "The request failed"}.</strong> ${error.message}
    ${error.requestId && html`<small>Request ${error.requestId}</small>`}
  </p>`;
}

/** The children once there is an answer; until then that it is being waited for, or why there is none. */
export function Answer({ of, children }) {
  if (of.error) return html`<${Problem} error=${of.error} />`;
  if (!of.value) return html`<p class="loading" role="status">Loading …</p>`;
  return children(of.value);
}

/** A table that scrolls by itself where the screen is narrow. `columns`: {head, cell(row), numeric}. */
export function Table({ caption, columns, rows, row = (n) => n, empty = "Nothing here." }) {
  if (rows.length === 0) return html`<p class="empty">${empty}</p>`;
  return html`<div class="scroll" role="region" aria-label=${caption} tabindex="0">
    <table>
      <caption class="hidden">${caption}</caption>
      <thead>
        <tr>
          ${columns.map((c) => html`<th scope="col" class=${c.numeric ? "numeric" : ""}>${c.head}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (item, n) => html`<tr key=${row(item, n)}>
            ${columns.map((c, i) => {
              const cell = c.cell(item, n);
              return i === 0 && !c.numeric
                ? html`<th scope="row">${cell}</th>`
                : html`<td class=${c.numeric ? "numeric" : ""}>${cell}</td>`;
            })}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** Facts as a list of terms. */
export function Facts({ of }) {
  return html`<dl class="facts">
    ${Object.entries(of)
      .filter(([, value]) => value !== null && value !== undefined)
      .map(
        ([name, value]) => html`<div key=${name}>
          <dt>${name}</dt>
          <dd>${typeof value === "number" ? number(value) : value}</dd>
        </div>`,
      )}
  </dl>`;
}

let opened = false;

/** A page's heading; it names the document, and gets the focus when the page is gone to from another one. */
export function Heading({ children, title }) {
  const element = useRef(null);
  useEffect(() => {
    document.title = `${title} · KDiffE console`;
    if (opened) element.current?.focus({ preventScroll: true });
    opened = true;
  }, [title]);
  return html`<h1 ref=${element} tabindex="-1">${children}</h1>`;
}

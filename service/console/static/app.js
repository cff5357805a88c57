// The console: navigation by the address's fragment, the key, the theme. Pages are in files of their own.

import { render } from "./vendor/preact.mjs";
import { useEffect, useRef, useState } from "./vendor/hooks.mjs";
import { api, key, onKey, setKey } from "./api.js";
import { ExplanationPage } from "./explanation.js";
import { ServicePage } from "./service.js";
import { TrainingPage } from "./training.js";
import { UsersPage } from "./users.js";
import { VersionPage, VersionsPage } from "./versions.js";
import { Heading, html, to, useAnswer, useEvery } from "./ui.js";

const PAGES = { users: "Users", versions: "Versions", training: "Training", service: "Service" };

/** The address's fragment as decoded parts: `#/users/a%2Fb` is ["users", "a/b"]. */
function place() {
  const parts = location.hash.replace(/^#\/?/, "").split("/");
  try {
    return parts.map(decodeURIComponent);
  } catch {
    return [""];
  }
}

function usePlace() {
  const [parts, setParts] = useState(place);
  useEffect(() => {
    const moved = () => setParts(place());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return parts;
}

function Page({ parts }) {
  const [page, first, second, third, fourth] = parts;
  if ((page === "" || page === "users") && second === "items" && third) {
    return html`<${ExplanationPage} key=${parts.join("/")} user=${first} item=${third} recommendation=${fourth} />`;
  }
  if (page === "" || page === "users") return html`<${UsersPage} key=${first} user=${first || ""} />`;
  if (page === "versions" && first) return html`<${VersionPage} key=${first} version=${first} />`;
  if (page === "versions") return html`<${VersionsPage} />`;
  if (page === "training") return html`<${TrainingPage} />`;
  if (page === "service") return html`<${ServicePage} />`;
  return html`<${Heading} title="Not found">There is no such page</${Heading}><p><a href=${to("users")}>Users</a></p>`;
}

/** Which version is served, always in sight. */
function Served() {
  const ready = useAnswer(api.ready, []);
  useEvery(5, ready.again);
  useEffect(() => {
    addEventListener("served", ready.again);
    return () => removeEventListener("served", ready.again);
  }, []);
  if (ready.error) return html`<span class="badge bad">not ready</span>`;
  if (!ready.value) return html`<span class="badge">…</span>`;
  const tried = Object.entries(ready.value.variants).map(([name, version]) => `, ${name}: ${version}`);
  return html`<span class="badge good">serving ${ready.value.model_version}${tried.join("")}</span>`;
}

function Theme() {
  const [theme, setTheme] = useState(localStorage.getItem("kdiffe.theme") || "system");
  useEffect(() => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem("kdiffe.theme", theme);
    dispatchEvent(new Event("themechange"));
  }, [theme]);
  return html`<label class="theme">
    <span>Theme</span>
    <select value=${theme} onChange=${(event) => setTheme(event.target.value)}>
      <option value="system">system</option>
      <option value="light">light</option>
      <option value="dark">dark</option>
    </select>
  </label>`;
}

/** Asks for the key: when a request needs one, or on demand. */
function KeyDialog({ open, reason, onDone }) {
  const dialog = useRef(null);
  useEffect(() => {
    if (open && !dialog.current.open) dialog.current.showModal();
    if (!open && dialog.current.open) dialog.current.close();
  }, [open]);
  const save = (event) => {
    event.preventDefault();
    const value = event.target.elements.key.value.trim();
    event.target.reset();
    setKey(value);
    onDone();
  };
  return html`<dialog ref=${dialog} aria-labelledby="key-title" onCancel=${onDone}>
    <h2 id="key-title">API key</h2>
    ${reason && html`<p class="problem" role="alert">${reason}</p>`}
    <form onSubmit=${save}>
      <label for="key">Key</label>
      <input id="key" name="key" type="password" autocomplete="off" spellcheck="false" required />
      <p class="note">It stays in this tab until the tab is closed.</p>
      <div class="buttons">
        <button type="submit">Use this key</button>
        <button type="button" class="plain" onClick=${onDone}>Cancel</button>
      </div>
    </form>
  </dialog>`;
}

function App() {
  const parts = usePlace();
  const [asking, setAsking] = useState(null); // null, or {reason}
  const [generation, setGeneration] = useState(0);
  useEffect(
    () =>
      onKey((error) => {
        if (error) setAsking((before) => before || { reason: error.message });
        else setGeneration((n) => n + 1); // every page asks again, with the new key
      }),
    [],
  );
  const here = parts[0] || "users";
  return html`<div>
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header>
      <a class="brand" href=${to("users")}>KDiffE</a>
      <nav aria-label="Pages">
        ${Object.entries(PAGES).map(
          ([name, title]) =>
            html`<a key=${name} href=${to(name)} aria-current=${here === name ? "page" : undefined}>${title}</a>`,
        )}
      </nav>
      <div class="tools">
        <${Served} key=${generation} />
        <${Theme} />
        ${key()
          ? html`<button class="plain" onClick=${() => setKey("")}>Forget the key</button>`
          : html`<button class="plain" onClick=${() => setAsking({ reason: "" })}>Key …</button>`}
      </div>
    </header>
    <main id="main" tabindex="-1"><${Page} key=${generation} parts=${parts} /></main>
    <${KeyDialog} open=${asking !== null} reason=${asking?.reason} onDone=${() => setAsking(null)} />
  </div>`;
}

function skip(event) {
  event.preventDefault(); // the fragment is the console's address
  document.getElementById("main").focus();
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);

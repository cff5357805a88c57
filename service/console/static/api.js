// The service's HTTP interface. The key is kept for this tab alone and sent with every request.

const BASE = new URL("..", document.baseURI);
const KEY = "kdiffe.key";

/** An error that the service answered, or that no answer came. */
export class ApiError extends Error {
  constructor(message, { code = "", status = 0, requestId = "" } = {}) {
    super(message);
    this.name = "ApiError";
    this.code = code;
    this.status = status;
    this.requestId = requestId;
  }
}

const listeners = new Set();

/** The key in use, empty where there is none. */
export function key() {
  return sessionStorage.getItem(KEY) || "";
}

/** Use another key from now on; an empty one forgets it. */
export function setKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
  for (const listener of listeners) listener(null);
}

/** Be told when a key is set, and of answers that say that one is needed. Returns how to stop. */
export function onKey(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

async function ask(method, path, query) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query || {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null) url.searchParams.append(name, one);
    }
  }
  const headers = { Accept: "application/json" };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  let answer;
  try {
    answer = await fetch(url, { method, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch {
    throw new ApiError("The service did not answer. Is it running?", { code: "no_answer" });
  }
  if (answer.ok) return answer;
  const { error = {} } = await answer.json().catch(() => ({}));
  const found = new ApiError(error.message || `Status ${answer.status}.`, {
    code: error.code,
    status: answer.status,
    requestId: error.request_id,
  });
  if (answer.status === 401) for (const listener of listeners) listener(found);
  throw found;
}

const json = async (method, path, query) => (await ask(method, path, query)).json();
const id = encodeURIComponent;

export const api = {
  ready: () => json("GET", "health/ready"),
  history: (user, limit, offset) => json("GET", `history/${id(user)}`, { limit, offset }),
  recommend: (user, k) => json("GET", `recommend/${id(user)}`, { k }),
  explain: (user, item, query) => json("GET", `explain/${id(user)}/${id(item)}`, query),
  items: (items) => json("GET", "items", { item_id: items }),
  models: () => json("GET", "admin/models"),
  model: (version) => json("GET", `admin/models/${id(version)}`),
  activate: (version) => json("POST", `admin/models/${id(version)}/activate`),
  rollback: () => json("POST", "admin/rollback"),
  experiment: () => json("GET", "admin/experiment"),
  endExperiment: () => json("DELETE", "admin/experiment"),
  jobs: () => json("GET", "admin/jobs"),
  jobLog: (job) => json("GET", `admin/jobs/${id(job)}/log`),
  cancel: (job) => json("POST", `admin/jobs/${id(job)}/cancel`),
  retrain: () => json("POST", "admin/retrain"),
  metrics: async () => (await ask("GET", "metrics")).text(),
};

// The only place that knows the key and asks the server. The key is in this tab alone: in its memory, and, if that is
// wanted, in its session storage, which ends with the tab.

const PLACE = "runrails-key";
let key = sessionStorage.getItem(PLACE);

/** Who is signed in, as `/v1/budget` says. */
export let me = null;

export class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const hasKey = () => key !== null;
export const may = (scope) => me !== null && me.scopes.includes(scope);

/** Try a key; keep it if it is good. Throws ApiError. */
export async function signIn(text, keep) {
  key = text;
  try {
    me = await get("../v1/budget");
  } catch (error) {
    if (error.status === 401 || keep !== null) signOut();
    throw error;
  }
  if (keep === true) sessionStorage.setItem(PLACE, text);
  return me;
}

/** Go on with the key of this tab. */
export const resume = () => signIn(key, null);

export function signOut() {
  key = null;
  me = null;
  sessionStorage.removeItem(PLACE);
}

/** Ask for something. Parameters that are null or empty are left out; lists are repeated. */
export function get(path, query = {}, signal = undefined) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") asked.append(name, each);
    }
  }
  const text = asked.toString();
  return ask("GET", text ? `${path}?${text}` : path, undefined, signal);
}

/** Change something. */
export const send = (method, path, body) => ask(method, path, body);

/** A path of parts that may hold anything. */
export const path = (...parts) => parts.map(encodeURIComponent).join("/");

async function ask(method, address, body, signal) {
  let answer;
  try {
    answer = await fetch(address, {
      method, signal, cache: "no-store", credentials: "omit", redirect: "error",
      headers: { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The gateway does not answer.", "unreachable");
  }
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => null);
  if (answer.ok && told !== null) return told;
  const what = told?.error;
  throw new ApiError(answer.status, what?.message ?? `The gateway answered ${answer.status}.`, what?.code ?? "");
}

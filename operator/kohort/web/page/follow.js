// Server-sent events over fetch(), so that the token travels in a header and never in an address.

const SILENT_MS = 40_000; // the server says something every 15 s
const LONGEST_EVENT = 16 * 1024 * 1024;
const LONGEST_PAUSE_MS = 30_000;

/** An answer that asking again does not change: 401, 403, 404 and the like. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Events out of chunks of text, whole ones only: [{event, data}]; call it with every chunk. */
export function eventReader() {
  let rest = "";
  return (chunk) => {
    const parts = (rest + chunk).split("\n\n");
    rest = parts.pop();
    if (rest.length > LONGEST_EVENT) throw new Error("an event is too large");
    return parts.flatMap((part) => {
      const fields = Object.fromEntries(part.split("\n").filter((line) => !line.startsWith(":")).map((line) => {
        const colon = line.indexOf(": ");
        return [line.slice(0, colon), line.slice(colon + 2)];
      }));
      return fields.event ? [{ event: fields.event, data: JSON.parse(fields.data) }] : [];
    });
  };
}

/** Milliseconds to wait before the next try: longer every time, and never the same for everybody. */
export function pauseAfter(failures, random = Math.random()) {
  return Math.min(LONGEST_PAUSE_MS, 1000 * 2 ** Math.min(failures, 6)) * (0.5 + random / 2);
}

/**
 * Follows `url` until `signal` is aborted: `onEvent(event, data)`, `onState("live" | "lost", why)`.
 * Throws a Refusal when there is nothing to wait for.
 */
export async function follow(url, token, signal, onEvent, onState) {
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      await once(url, token, signal, (event, data) => {
        failures = 0;
        onEvent(event, data);
      }, onState);
      if (signal.aborted) return;
      onState("lost", "the connection ended");
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refusal && ![429, 503].includes(error.status)) throw error;
      onState("lost", error instanceof Refusal ? error.message : "the server does not answer");
    }
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, pauseAfter(failures));
      signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
    });
  }
}

async function once(url, token, signal, onEvent, onState) {
  const silence = new AbortController();
  const stop = () => silence.abort();
  signal.addEventListener("abort", stop, { once: true });
  let timer = setTimeout(stop, SILENT_MS);
  try {
    const headers = { Accept: "text/event-stream", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const answer = await fetch(url, { headers, signal: silence.signal, cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" });
    if (!answer.ok) throw new Refusal(answer.status, await messageOf(answer));
    onState("live", "");
    const read = eventReader();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENT_MS);
      for (const { event, data } of read(part.value)) {
        if (event === "refused") throw new Refusal(403, data);
        onEvent(event, data);
      }
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}

async function messageOf(answer) {
  try {
    return String((await answer.json()).message);
  } catch {
    return `the server answered ${answer.status}`;
  }
}

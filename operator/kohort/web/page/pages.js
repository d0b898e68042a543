// What is to be seen, as elements: the list of rollouts, and one rollout.

import { clock, el, legend, stretches, told, trailChart, weightsChart } from "./charts.js";

const GOOD = new Set(["Healthy", "Stable", "Ready", "Pass", "HoldingBack"]);
const BAD = new Set(["RollingBack", "RolledBack", "Degraded", "Fail"]);
const CARE = new Set(["Paused", "MetricsError", "WaitingForGPU"]);
const GOING = new Set(["Analyzing", "Progressing", "Promoting", "Preparing", "Compiling", "Downloading"]);

/** A phase or verdict: its sign tells as much as its colour. */
export function word(text) {
  const kind = GOOD.has(text) ? "good" : BAD.has(text) ? "bad" : CARE.has(text) ? "care" : GOING.has(text) ? "going" : "";
  return el("span", { class: `word ${kind}`.trim() }, text);
}

export function address(namespace, name) {
  return `#/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
}

function problems(texts) {
  return texts.map((text) => el("p", { class: "problem" }, text));
}

const COLUMNS = ["Name", "Namespace", "Phase", "Stable", "Canary", "Weight", "Step", "Pods", "Message"];

/** The table of rollouts; roles are given because narrow screens lay it out as cards. */
export function list({ models, more, problems: wrong }, search) {
  const wanted = models.filter((model) => model.name.toLowerCase().includes(search.toLowerCase()));
  const found = wanted.length === models.length ? count(models.length + more) : `${wanted.length} of ${count(models.length + more)}`;
  const head = el("tr", { role: "row" }, COLUMNS.map((name) => el("th", { role: "columnheader", scope: "col" }, name)));
  const rows = wanted.map((model) => {
    const cell = (column, ...content) => el("td", { role: "cell", class: "brief", "data-column": column }, ...content);
    return el("tr", { role: "row", "data-key": `${model.namespace}/${model.name}` },
      el("th", { role: "rowheader", scope: "row" }, el("a", { href: address(model.namespace, model.name), "data-row": true }, model.name)),
      cell("Namespace", model.namespace), cell("Phase", word(model.phase)), cell("Stable", model.stable),
      cell("Canary", model.canary), cell("Weight", model.weight), cell("Step", model.step),
      el("td", { role: "cell", class: "figure brief", "data-column": "Pods" }, `${model.ready}/${model.wanted}`),
      el("td", { role: "cell", class: "message", "data-column": "Message" }, model.message));
  });
  return el("div", {},
    problems(wrong),
    el("p", { class: "aside" }, `${found}${more ? `; the first ${models.length} are shown: search for others` : ""}`),
    wanted.length ? el("div", { class: "wide" }, el("table", { class: "cards", role: "table", "aria-label": "Rollouts" },
      el("thead", { role: "rowgroup" }, head), el("tbody", { role: "rowgroup" }, rows))) : null);
}

function count(number) {
  return number === 1 ? "1 rollout" : number ? `${number} rollouts` : "no rollout";
}

/** One rollout; `width` is that of the page in pixels. */
export function rollout({ model, problems: wrong }, width) {
  return el("div", {},
    el("h1", { tabindex: "-1" }, `${model.name} `, word(model.phase)),
    el("p", { class: "aside" }, `namespace ${model.namespace}`, model.wanted ? `, ${model.ready} of ${model.wanted} pods ready` : ""),
    problems(wrong),
    model.notes.map((note) => el("p", { class: note.tone }, note.text)),
    model.cohorts.map((each) => cohort(each, model, width)),
    revisions(model));
}

function cohort(cohort, model, width) {
  const id = `cohort-${model.cohorts.indexOf(cohort)}`;
  const stable = cohort.stable || "no revision";
  const arms = cohort.canary ? `${cohort.canary} for ${cohort.weight}% of its clients, ${stable} for the others` : stable;
  return el("section", { class: "cohort", "aria-labelledby": id, "data-key": `cohort ${cohort.name}` },
    el("div", { class: "where" },
      el("h2", { id }, `${cohort.name} `, word(cohort.phase)),
      el("span", {}, arms),
      cohort.rejected ? el("span", { class: "bad" }, `${cohort.rejected} rejected`) : null,
      cohort.held ? el("span", { class: "held" }, "held") : null),
    el("p", { class: "why" }, cohort.why),
    steps(cohort), weights(cohort, model, width), evidence(cohort), decisions(cohort));
}

function steps(cohort) {
  if (!cohort.canary || !cohort.steps.length) return null;
  const present = Number(cohort.step.split("/")[0]) - 1;
  return el("ol", { class: "steps", "aria-label": "Steps" }, cohort.steps.map((step, index) =>
    el("li", { "aria-current": index === present ? "step" : false }, `${step.weight}%${step.text ? `, ${step.text}` : ""}`)));
}

function weights(cohort, model, width) {
  const parts = stretches(cohort.weights, model.at);
  if (!parts.length || (parts.length === 1 && !cohort.canary)) return null; // nothing has moved
  const rows = parts.map((part) => el("tr", {},
    el("th", { scope: "row" }, clock(part.from, model.at)), el("td", {}, told(part.shares))));
  return el("figure", { "data-key": "weights" },
    weightsChart(cohort.weights, cohort.decisions, model.at, width),
    legend(cohort.weights),
    el("figcaption", {}, `Share of the cohort's clients by revision. ${cohort.begins}`),
    el("details", {}, el("summary", {}, "Weights as a table"),
      el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "From"), el("th", { scope: "col" }, "Clients"))), el("tbody", {}, rows))));
}

function evidence(cohort) {
  const metrics = cohort.evidence;
  if (!metrics.length) return null;
  const lines = metrics.some((metric) => metric.borders.length); // none once a rollout is over
  const untold = (metric) => (cohort.why.includes(metric.message) ? "" : metric.message);
  const columns = ["Metric", "Verdict", "Counted, canary vs stable", lines && "Towards its borders", metrics.some(untold) && "What is seen"].filter(Boolean);
  const rows = metrics.map((metric) => el("tr", { "data-key": metric.metric, role: "row" },
    el("th", { scope: "row", role: "rowheader" }, metric.metric, metric.watched ? el("div", { class: "aside" }, "only watched: decides nothing") : null),
    el("td", { role: "cell", "data-column": "Verdict" }, word(metric.verdict)),
    el("td", { role: "cell", class: "figure", "data-column": "Counted" }, counted(metric)),
    lines ? el("td", { role: "cell", "data-column": "Towards its borders" }, el("div", { class: "trails" }, metric.borders.map(trail))) : null,
    metrics.some(untold) ? el("td", { role: "cell", class: "message" }, untold(metric)) : null));
  const began = metrics.map((metric) => metric.began).find(Boolean);
  return el("div", { "data-key": "evidence" },
    el("h3", {}, "Evidence"),
    el("div", { class: "wide" }, el("table", { class: "cards", role: "table", "aria-label": `Evidence of ${cohort.name}` },
      lines ? el("caption", {}, `Each line runs ${began ? `from ${began}, when the analysis began,` : "from the begin of the analysis"} to now; the dashed line is its border.`) : null,
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, columns.map((name) => el("th", { scope: "col", role: "columnheader" }, name)))),
      el("tbody", { role: "rowgroup" }, rows))));
}

function counted(metric) {
  if (!metric.canary) return "";
  return [metric.canary, ` vs ${metric.stable}`, metric.shares ? el("div", { class: "aside" }, metric.shares) : null];
}

function trail(border) {
  const last = border.percent.at(-1);
  const aim = border.kind === "harm" ? "of what accuses it" : "of what proves it";
  const text = last === undefined ? "nothing counted yet" : `${last}% ${aim}`;
  return el("div", { class: "trail", "data-key": border.kind }, border.percent.length ? trailChart(border) : null, `${border.kind}: ${text}`);
}

function decisions(cohort) {
  if (!cohort.decisions.length) return null;
  const rows = cohort.decisions.map((each) => el("tr", { role: "row", "data-key": `${each.when} ${each.action} ${each.revision}` },
    el("th", { scope: "row", role: "rowheader" }, each.when),
    el("td", { role: "cell" }, `${each.action} ${each.revision}`),
    el("td", { role: "cell", "data-column": "By" }, each.by || "Kohort"),
    el("td", { role: "cell", class: "message" }, [each.why, each.message].filter(Boolean).join(" — "))));
  return el("details", { "data-key": "decisions", open: true },
    el("summary", {}, cohort.decisions.length === 1 ? "1 decision" : `${cohort.decisions.length} decisions`),
    el("table", { class: "cards", role: "table", "aria-label": "Decisions, newest first" },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ["When", "Decision", "By", "Why"].map((name) => el("th", { scope: "col", role: "columnheader" }, name)))),
      el("tbody", { role: "rowgroup" }, rows)));
}

function revisions(model) {
  if (!model.revisions.length) return null;
  return el("section", { "aria-labelledby": "revisions", "data-key": "revisions" },
    el("h2", { id: "revisions" }, "Revisions"),
    model.revisions.map((each) => el("div", { "data-key": each.label },
      el("h3", {}, `${each.label} `, el("span", { class: each.ready >= each.wanted ? "good" : "care" }, each.wanted || each.ready ? `${each.ready} of ${each.wanted} ready` : "no pods"),
        each.roles.length ? el("span", { class: "aside" }, ` ${each.roles.join(", ")}`) : null),
      el("p", { class: "mono" }, each.uri),
      each.problem ? el("p", { class: "care" }, each.problem) : null,
      pods(each))),
    model.podsShown ? null : el("p", { class: "aside" }, "Pods are not shown: you may not list pods in this namespace."));
}

function pods(revision) {
  if (!revision.pods.length) return null;
  const total = revision.pods.length + revision.more;
  return el("details", {},
    el("summary", {}, total === 1 ? "1 pod" : `${total} pods`),
    el("table", { class: "cards", role: "table", "aria-label": `Pods of ${revision.label}` },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ["Pod", "State", "Restarts"].map((name) => el("th", { scope: "col", role: "columnheader" }, name)))),
      el("tbody", { role: "rowgroup" }, revision.pods.map((pod) => el("tr", { role: "row", "data-key": pod.name },
        el("th", { scope: "row", role: "rowheader", class: "mono" }, pod.name),
        el("td", { role: "cell" }, word(pod.state)),
        el("td", { role: "cell", class: "figure", "data-column": "Restarts" }, String(pod.restarts)))))),
    revision.more ? el("p", { class: "aside" }, `and ${revision.more} more`) : null);
}

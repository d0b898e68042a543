// Charts as SVG, and elements in general: text is only ever put in as text, never read as HTML.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 5;
const MARGIN = { left: 44, right: 8, top: 16, bottom: 20 };
const HEIGHT = 130;
const LABEL_ROOM = 110; // pixels that the name of a decision takes

export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "2-digit", day: "2-digit" });

/** The time of day, with the date where that is another day than `now`; both in seconds. */
export function clock(at, now) {
  const [then, today] = [new Date(at * 1000), new Date(now * 1000)];
  return then.toDateString() === today.toDateString() ? CLOCK.format(then) : `${DAY.format(then)} ${CLOCK.format(then)}`;
}

/** Stretches of time in which no weight changed: [{from, to, shares: [{label, percent}]}], oldest first. */
export function stretches(points, now) {
  const all = points.map((point, index) => ({
    from: point.at,
    to: Math.max(point.at, index + 1 < points.length ? points[index + 1].at : now),
    shares: sharesOf(point),
  }));
  return all.reduce((merged, each) => {
    const last = merged.at(-1);
    if (last && told(last.shares) === told(each.shares)) last.to = each.to;
    else merged.push(each);
    return merged;
  }, []);
}

/** What share of the clients each revision has, stable first. */
export function sharesOf(point) {
  const shares = [{ label: point.stable || "no revision", percent: 100 - point.weight }];
  if (point.canary) shares.push({ label: point.canary, percent: point.weight });
  return shares.filter((share) => share.percent > 0);
}

/** Revisions in the order in which they turn up: their place decides their colour. */
export function labelsOf(points) {
  return [...new Set(points.flatMap((point) => sharesOf(point).map((share) => share.label)))];
}

export function told(shares) {
  return shares.map((share) => `${share.percent}% on ${share.label}`).join(", ");
}

/** The weights of one cohort over time as bands, decisions as marks; `width` in pixels. */
export function weightsChart(points, decisions, now, width) {
  const begin = points[0].at;
  const end = Math.max(now, begin + 1);
  const x = (at) => MARGIN.left + ((at - begin) / (end - begin)) * (width - MARGIN.left - MARGIN.right);
  const y = (percent) => HEIGHT - MARGIN.bottom - (percent / 100) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const labels = labelsOf(points);
  const bands = stretches(points, now).flatMap(({ from, to, shares }) => {
    let under = 0;
    return shares.map(({ label, percent }) => {
      const band = svg("rect", {
        class: `r${labels.indexOf(label) % COLOURS}`,
        x: x(from).toFixed(1),
        width: Math.max(1, x(Math.min(to, end)) - x(from)).toFixed(1),
        y: y(under + percent).toFixed(1),
        height: (y(under) - y(under + percent)).toFixed(1),
      });
      under += percent;
      return band;
    });
  });
  const scale = [0, 50, 100].flatMap((percent) => [
    svg("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(percent), y2: y(percent) }),
    svg("text", { x: MARGIN.left - 6, y: y(percent) + 4, "text-anchor": "end" }, `${percent}%`),
  ]);
  const ends = [
    svg("text", { x: MARGIN.left, y: HEIGHT - 4 }, clock(begin, now)),
    svg("text", { x: width - MARGIN.right, y: HEIGHT - 4, "text-anchor": "end" }, "now"),
  ];
  return svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${HEIGHT}`,
      height: HEIGHT,
      role: "img",
      "aria-label": `Share of clients by revision from ${clock(begin, now)} on; now ${told(sharesOf(points.at(-1)))}`,
    },
    scale, bands, marks(decisions, begin, end, x, width), ends,
  );
}

function marks(decisions, begin, end, x, width) {
  let last = -LABEL_ROOM;
  return decisions
    .filter((decision) => decision.at !== null && decision.at >= begin && decision.at <= end)
    .sort((one, other) => one.at - other.at)
    .flatMap((decision) => {
      const place = x(decision.at);
      const line = svg("line", { class: "mark", x1: place, x2: place, y1: MARGIN.top - 4, y2: HEIGHT - MARGIN.bottom });
      if (place - last < LABEL_ROOM) return [line];
      last = place;
      const atEnd = place > width - LABEL_ROOM;
      return [line, svg("text", { x: place, y: MARGIN.top - 6, "text-anchor": atEnd ? "end" : "start" }, `${decision.action} ${decision.revision}`)];
    });
}

/** The names of the bands' colours. */
export function legend(points) {
  return el("ul", { class: "legend", "aria-label": "Colours of the revisions" }, labelsOf(points).map((label, index) =>
    el("li", { "data-key": label },
      svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("rect", { class: `r${index % COLOURS}`, width: 10, height: 10 })),
      label)));
}

/** How one kind of evidence has come towards its border, which is the dashed line. */
export function trailChart(border) {
  const [width, height] = [192, 40];
  const points = border.percent;
  const step = points.length > 1 ? width / (points.length - 1) : 0;
  const y = (percent) => height - 2 - (percent / 100) * (height - 6);
  const path = points.map((percent, index) => `${index ? "L" : "M"}${(index * step).toFixed(1)} ${y(percent).toFixed(1)}`).join("");
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("line", { class: "border", x1: 0, x2: width, y1: y(100), y2: y(100) }),
    svg("line", { class: "axis", x1: 0, x2: width, y1: y(0), y2: y(0) }),
    svg("path", { class: border.kind === "proof" ? "proof" : "harm", d: points.length === 1 ? `${path}h${width}` : path }));
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
}

/** Makes `old` look like `fresh` and keeps what is the same, so that focus and open details stay. */
export function morph(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open" && name !== "tabindex") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const keyed = new Map([...old.childNodes].map((child) => [keyOf(child), child]).filter(([key]) => key !== null));
  let spot = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = keyOf(child);
    const match = key === null ? (spot && keyOf(spot) === null ? spot : null) : keyed.get(key);
    if (!match || match.nodeType !== child.nodeType || match.nodeName !== child.nodeName) {
      old.insertBefore(child, spot);
      continue;
    }
    if (match === spot) spot = spot.nextSibling;
    else old.insertBefore(match, spot);
    morph(match, child);
  }
  while (spot) {
    const next = spot.nextSibling;
    spot.remove();
    spot = next;
  }
}

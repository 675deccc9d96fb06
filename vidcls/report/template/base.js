"use strict";
// Text from outside only ever becomes a text node or an attribute that cannot run: no markup is put together here.

const byId = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en-US");
const percent = (share, digits = 1) => (share === null ? "–" : (100 * share).toFixed(digits) + "%");
const seconds = (value) => {
  if (value === undefined) return "–";
  if (value < 60) return value.toFixed(1) + " s";
  const whole = Math.round(value);
  const rest = String(whole % 60).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
};

/** Make an element: `class` and attributes, `on…` listeners, `--…` custom properties; strings become text. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
const bdi = (text) => h("bdi", {}, text);
const hidden = (text) => h("span", { class: "hidden" }, text);

const DATA = JSON.parse(byId("data").textContent);
const LABELS = DATA.labels;
const CLIPS = DATA.clips.map((raw, number) => {
  const cut = Math.max(raw.p.lastIndexOf("/"), raw.p.lastIndexOf("\\")) + 1;
  return {
    number,
    path: raw.p,
    name: raw.p.slice(cut),
    folder: raw.p.slice(0, cut),
    link: raw.h,
    duration: raw.d,
    rate: raw.f,
    top: (raw.t ?? []).map(([label, score]) => ({ label, score: score / 10000 })),
    truth: raw.y,
    error: raw.e?.startsWith(`${raw.p}: `) ? raw.e.slice(raw.p.length + 2) : raw.e,
    kind: raw.e === undefined ? undefined : (raw.k ?? "failed"),
    warnings: raw.w ?? [],
    seconds: raw.s,
    extra: raw.x ?? {},
    views: raw.v ?? [],
  };
});
const best = (clip) => clip.top[0];
const isWrong = (clip) => clip.truth !== undefined && clip.top.length > 0 && !clip.truth.includes(best(clip).label);
const clipsText = (number) => `${count(number)} ${number === 1 ? "clip" : "clips"}`;
/** The names of labels, each on its own, with commas between. */
const labelList = (labels) => labels.flatMap((label, at) => (at ? [", ", bdi(LABELS[label])] : [bdi(LABELS[label])]));

/** A bar of a share from 0 to 1; the number beside it says the same. */
const track = (share) => h("span", { class: "track", "aria-hidden": "true", "--share": Math.min(Math.max(share, 0), 1) }, h("i"));

/** One frame of a view's strip, `height` pixels high. */
function frame(view, at, height) {
  const scale = height / 72;
  const width = Math.round(view.w * scale);
  const image = h("img", { src: view.j, alt: "", loading: "lazy", decoding: "async", height });
  image.style.width = `${view.w * view.t.length * scale}px`;
  image.style.marginLeft = `${-at * view.w * scale}px`;
  const box = h("span", { class: "frame" }, image);
  box.style.width = `${width}px`;
  box.style.height = `${height}px`;
  return box;
}

function thumbnail(clip) {
  if (!clip.views.length) return h("span", { class: "thumb", "aria-hidden": "true" });
  const view = clip.views[clip.views.length >> 1];
  return h("span", { class: "thumb" }, frame(view, view.t.length >> 1, Math.min(54, Math.floor((54 * 128) / Math.max(view.w, 96)))));
}

// Tabs

const TABS = [];

/** Add a tab; `build` fills its panel when it is shown first. */
function addTab(id, title, build, number) {
  const list = byId("tabs");
  const panel = byId(id) ?? byId("main").appendChild(h("section", { id }));
  panel.setAttribute("role", "tabpanel");
  panel.setAttribute("aria-labelledby", `tab-${id}`);
  panel.hidden = true;
  const label = number === undefined ? [] : [h("span", {}, count(number))];
  const button = h("button", { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": id, onclick: () => selectTab(id) }, title, ...label);
  list.append(button);
  TABS.push({ id, button, panel, build });
}

function selectTab(id, focus = false) {
  for (const tab of TABS) {
    const chosen = tab.id === id;
    tab.button.setAttribute("aria-selected", String(chosen));
    tab.button.tabIndex = chosen ? 0 : -1;
    tab.panel.hidden = !chosen;
    if (!chosen) continue;
    tab.build?.(tab.panel);
    tab.build = undefined;
    if (focus) tab.button.focus();
    tab.button.scrollIntoView({ block: "nearest", inline: "nearest" });
    history.replaceState(null, "", `#/${id}`); // not the name of an element, to which the browser would scroll
  }
}

byId("tabs").addEventListener("keydown", (event) => {
  const at = TABS.findIndex((tab) => tab.button === document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: TABS.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  selectTab(TABS[(to + TABS.length) % TABS.length].id, true);
});

// Timelines: a bar of segments over frames of the video, scrubbed by pointer or keyboard; the video follows where it is.

const FILMS_AT_ONCE = 20;
const hue = (label) => (label * 137) % 360;
const moment = (value) => `${Math.floor(value / 60)}:${(value % 60).toFixed(1).padStart(4, "0")}`;

function buildFilms(panel) {
  let shownFilms = 0;
  const more = h("button", { type: "button", onclick: () => grow() });
  const pager = h("div", { class: "pager" }, more);
  panel.append(pager);
  const grow = () => {
    const next = DATA.films.slice(shownFilms, shownFilms + FILMS_AT_ONCE).map(film);
    shownFilms += next.length;
    pager.before(...next);
    pager.hidden = shownFilms >= DATA.films.length;
    more.textContent = `Show more of ${count(DATA.films.length - shownFilms)}`;
  };
  grow();
}

function film(raw) {
  const cut = Math.max(raw.p.lastIndexOf("/"), raw.p.lastIndexOf("\\")) + 1;
  const head = h("div", { class: "film-head" }, h("h2", {}, bdi(raw.p.slice(cut))), h("small", { class: "soft" }, bdi(raw.p.slice(0, cut)), raw.d ? ` ${seconds(raw.d)}` : ""));
  if (raw.e !== undefined || !raw.d) return h("article", { class: "film card" }, head, h("p", { class: raw.e ? "bad" : "soft" }, bdi(raw.e ?? "No segment.")));
  const segments = raw.s.map(([start, end, top]) => ({ start, end, label: top[0][0], score: top[0][1] / 10000, top }));
  const at = (time) => segments.find((one) => one.start <= time && time < one.end);
  const left = (time) => `${(100 * time) / raw.d}%`;
  const mark = h("i", { class: "playhead" });
  const bar = h("div", { class: "segments", "aria-hidden": "true" }, segments.map((one) => segmentBar(one, raw.d)), (raw.c ?? []).map((time) => h("i", { class: "shot", "--left": left(time) })), mark);
  const readout = h("p", { class: "readout" });
  const slider = h("input", { type: "range", min: 0, max: raw.d, step: Math.min(0.1, raw.d / 100), value: 0, "aria-label": `Time in ${raw.p.slice(cut)}` });
  const video = filmVideo(raw);
  const go = (time, seek = true) => {
    const segment = at(time);
    slider.value = time;
    slider.setAttribute("aria-valuetext", `${moment(time)}: ${segment ? `${LABELS[segment.label]}, ${percent(segment.score)}` : "no label"}`);
    mark.style.setProperty("--left", left(time));
    const said = segment ? [swatch(segment.label), bdi(LABELS[segment.label]), h("span", { class: "soft" }, ` ${percent(segment.score)} · ${moment(segment.start)} to ${moment(segment.end)}`)] : [h("span", { class: "soft" }, "no label")];
    readout.replaceChildren(h("span", { class: "clock" }, moment(time)), ...said);
    if (seek && video) video.currentTime = time;
  };
  slider.addEventListener("input", () => go(slider.valueAsNumber));
  dragged(bar, (share) => go(share * raw.d));
  video?.addEventListener("timeupdate", () => go(Math.min(video.currentTime, raw.d), false));
  const note = h("p", { class: "soft", hidden: true }, "This browser cannot play the video, or it is no longer where it was.");
  video?.addEventListener("error", () => ([video.hidden, note.hidden] = [true, false]));
  go(0, false);
  return h("article", { class: "film card" }, head, video, note, filmstrip(raw), bar, slider, readout, legend(segments), segmentTable(segments, go));
}

const swatch = (label) => h("i", { class: "swatch", "aria-hidden": "true", "--hue": hue(label) });

function segmentBar(one, duration) {
  const share = (one.end - one.start) / duration;
  const said = `${moment(one.start)} to ${moment(one.end)}: ${LABELS[one.label]} ${percent(one.score)}`;
  return h("span", { class: "segment", title: said, "--hue": hue(one.label), "--left": `${(100 * one.start) / duration}%`, "--width": `${100 * share}%` }, bdi(LABELS[one.label]));
}

function filmVideo(raw) {
  return raw.h ? h("video", { controls: true, muted: true, preload: "metadata", src: raw.h, "aria-label": `Video ${raw.p}` }) : null;
}

/** Frames of the whole video, spread over the bar's width. */
function filmstrip(raw) {
  const view = raw.v?.[0];
  return view ? h("div", { class: "filmstrip", "aria-hidden": "true" }, h("img", { src: view.j, alt: "" })) : null;
}

/** Follow the pointer from press to release, as a share of the bar's width. */
function dragged(bar, follow) {
  const tell = (event) => {
    const box = bar.getBoundingClientRect();
    follow(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
  };
  bar.addEventListener("pointerdown", (event) => {
    bar.setPointerCapture(event.pointerId);
    tell(event);
  });
  bar.addEventListener("pointermove", (event) => bar.hasPointerCapture(event.pointerId) && tell(event));
}

function legend(segments) {
  const times = new Map();
  for (const one of segments) times.set(one.label, (times.get(one.label) ?? 0) + one.end - one.start);
  const sorted = [...times].sort((a, b) => b[1] - a[1]).slice(0, 12);
  return h("ul", { class: "legend" }, sorted.map(([label, time]) => h("li", {}, swatch(label), bdi(LABELS[label]), h("span", { class: "soft" }, ` ${seconds(time)}`))));
}

function segmentTable(segments, go) {
  const body = h("tbody");
  const fill = () =>
    body.replaceChildren(
      ...segments.map((one) =>
        h(
          "tr",
          { onclick: () => go(one.start) },
          h("td", {}, h("button", { type: "button", class: "link number" }, `${moment(one.start)} – ${moment(one.end)}`)),
          h("td", {}, swatch(one.label), bdi(LABELS[one.label])),
          h("td", { class: "number" }, percent(one.score)),
        ),
      ),
    );
  const head = h("tr", {}, h("th", { scope: "col" }, "Time"), h("th", { scope: "col" }, "Label"), h("th", { scope: "col", class: "number" }, "Mean score"));
  return h("details", { ontoggle: fill }, h("summary", {}, `${count(segments.length)} segments`), h("table", { class: "table" }, h("thead", {}, head), body));
}

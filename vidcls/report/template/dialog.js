// One clip: its video, the frames of each view, all its predictions.

let shown = [];

/** Open a clip; `list` are those that "Previous" and "Next" go to. */
function openClip(clip, list) {
  shown = list;
  const dialog = byId("dialog");
  const at = list.indexOf(clip);
  const step = (title, to) => h("button", { type: "button", disabled: to < 0 || to >= list.length, onclick: () => openClip(list[to], list) }, title);
  dialog.replaceChildren(
    h(
      "div",
      { class: "dialog-head" },
      h("div", {}, h("h2", { id: "dialog-title" }, bdi(clip.name)), clip.folder && h("small", { class: "soft" }, bdi(clip.folder)), clip.truth === undefined || clip.error ? null : h("p", {}, verdict(clip))),
      step("Previous", at - 1),
      step("Next", at + 1),
      h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
    ),
    h("div", { class: "dialog-body" }, clip.error && h("p", { class: "bad" }, bdi(clip.error)), h("div", { class: "halves" }, player(clip), predictions(clip)), frames(clip), facts(clip)),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

byId("dialog").addEventListener("keydown", (event) => {
  if (event.target.closest("video, input")) return;
  const title = { ArrowLeft: "Previous", ArrowRight: "Next" }[event.key];
  const button = [...byId("dialog").querySelectorAll(".dialog-head button")].find((one) => one.textContent === title && !one.disabled);
  if (button) {
    event.preventDefault();
    button.click();
    [...byId("dialog").querySelectorAll(".dialog-head button")].find((one) => one.textContent === title)?.focus();
  }
});
byId("dialog").addEventListener("click", (event) => event.target === byId("dialog") && byId("dialog").close());
byId("dialog").addEventListener("close", () => byId("dialog").replaceChildren()); // ends a video that plays

/** The video where it lies beside the page, or a line that says why it does not play. */
function player(clip) {
  if (!clip.link || clip.error) return null;
  const video = h("video", { controls: true, muted: true, loop: true, preload: "metadata", src: clip.link, "aria-label": `Video ${clip.name}` });
  const note = h("p", { class: "soft", hidden: true }, "This browser cannot play the video, or it is no longer where it was.");
  video.addEventListener("error", () => {
    video.hidden = true;
    note.hidden = false;
  });
  return h("div", {}, video, note);
}

function frames(clip) {
  if (!clip.views.length) return null;
  const several = clip.views.length > 1;
  return h(
    "section",
    {},
    h("h3", {}, several ? "Frames of each view" : "Frames"),
    h(
      "div",
      { class: "views" },
      clip.views.map((view, at) =>
        h(
          "div",
          { class: "view" },
          h("span", {}, several ? `View ${at + 1}` : ""),
          h("div", { class: "frames" }, view.t.map((time, place) => h("figure", { role: "img", "aria-label": `Frame at ${time.toFixed(2)} seconds` }, frame(view, place, 72), h("figcaption", { "aria-hidden": "true" }, `${time.toFixed(2)} s`)))),
        ),
      ),
    ),
  );
}

function predictions(clip) {
  if (!clip.top.length) return null;
  return h(
    "section",
    {},
    h("h3", {}, "Predictions"),
    h("ol", { class: "bars" }, clip.top.map((one) => h("li", {}, bdi(LABELS[one.label]), track(one.score), h("span", { class: "number" }, percent(one.score))))),
  );
}

function facts(clip) {
  const found = [
    ["Length", clip.duration === undefined ? undefined : seconds(clip.duration)],
    ["Frame rate", clip.rate === undefined ? undefined : `${clip.rate} frames/s`],
    ["Time to score", clip.seconds === undefined ? undefined : `${clip.seconds.toFixed(2)} s`],
    ...clip.warnings.map((text) => ["Warning", text]),
    ...Object.entries(clip.extra),
  ].filter(([, value]) => value !== undefined);
  return found.length ? h("dl", { class: "facts" }, found.map(([name, value]) => h("div", {}, h("dt", {}, bdi(name)), h("dd", {}, bdi(value))))) : null;
}

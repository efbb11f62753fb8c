// "Continue a text": for models without a chat format. One sheet of text; the model writes on at
// its end, and what it wrote last is shaded until the reader changes the text before its end.

import { stopped, stream } from "./api.js";
import { announce, byId, growWithText } from "./dom.js";
import { plural, speedLine } from "./numbers.js";
import { paced } from "./pace.js";
import { requestMembers } from "./settings.js";
import * as store from "./store.js";

export const TOKENS = 128;  // where the reader sets no number: the API's own 16 are a taste only

export function setUpText(server) {
  const area = byId("text"), shade = byId("text-shade"), problem = byId("text-problem"), speed = byId("text-speed");
  const undo = byId("text-undo"), another = byId("text-again");
  const fit = growWithText(area);
  let written = null;   // {before, piece}: the model's last piece and the text it goes on from
  let underWay = null;  // AbortController

  function show() {
    const whole = written && area.value.startsWith(written.before + written.piece);
    if (written && !whole && !underWay) written = null;
    shade.replaceChildren();
    if (written) {
      const mark = document.createElement("mark");
      mark.textContent = written.piece;
      shade.append(written.before, mark, area.value.slice(written.before.length + written.piece.length), "\n");
    }
    undo.disabled = another.disabled = !written || underWay !== null;
    byId("text-send").hidden = underWay !== null;
    byId("text-stop").hidden = underWay === null;
    area.readOnly = underWay !== null;
    fit();
  }

  async function go() {
    if (underWay || !area.value) return;
    const control = underWay = new AbortController();
    const mine = written = { before: area.value, piece: "" };
    let usage, timings;
    problem.hidden = true;
    speed.textContent = "";
    const draw = () => {
      const follow = innerHeight + scrollY >= document.documentElement.scrollHeight - 60;
      area.value = mine.before + mine.piece;
      show();
      if (follow) scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
    };
    const pace = paced(draw);
    draw();
    announce("The model is writing");
    try {
      const body = { model: server.model, prompt: mine.before, max_tokens: TOKENS, stream: true,
                     stream_options: { include_usage: true }, ...requestMembers() };
      for await (const event of stream("/v1/completions", body, control.signal)) {
        mine.piece += event.choices?.[0]?.text ?? "";
        usage = event.usage ?? usage;
        timings = event.timings ?? timings;
        pace.soon();
      }
    } catch (error) {
      if (!stopped(error)) {
        problem.textContent = error.message;
        problem.hidden = false;
      }
    }
    pace.stop();
    underWay = null;
    if (!mine.piece) written = null;
    draw();
    speed.textContent = speedLine(usage, timings);
    store.writeDraft("text", area.value);
    announce(`The model wrote ${plural(mine.piece.length, "character")}`);
  }

  function takeBack() {
    area.value = written.before;
    written = null;
    store.writeDraft("text", area.value);
    speed.textContent = "";
    show();
  }

  const stop = () => underWay?.abort();
  byId("text-form").addEventListener("submit", (event) => { event.preventDefault(); go(); });
  byId("text-stop").addEventListener("click", stop);
  undo.addEventListener("click", takeBack);
  another.addEventListener("click", () => { takeBack(); go(); });
  area.addEventListener("input", () => { store.writeDraft("text", area.value); show(); });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); go(); }
  });
  addEventListener("keydown", (event) => event.key === "Escape" && stop());

  area.value = store.readDraft("text");
  show();
  return { shown: () => { show(); area.focus({ preventScroll: true }); } };
}

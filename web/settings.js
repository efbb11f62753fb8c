// The settings of a request: sampling, length, seed and the system message. An empty field leaves
// the matter to the server, whose own value stands in it in grey.

import { byId } from "./dom.js";
import { readSettings, writeSettings } from "./store.js";

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

let settings = readSettings();

// The members of a request's body that the reader has set.
export function requestMembers() {
  const set = NUMBERS.filter((name) => (settings[name] ?? "") !== "");
  return Object.fromEntries(set.map((name) => [name, Number(settings[name])]));
}
export const systemMessage = () => (settings.system ?? "").trim();

// `shortest`: the tokens of a text's continuation where the reader sets no number.
export function setUpSettings({ defaults = {}, context, format, shortest }) {
  const dialog = byId("settings"), form = byId("settings-form"), opener = byId("open-settings");
  const fields = [...form.elements].filter((field) => field.name);
  const mark = () => opener.classList.toggle("set", fields.some((field) => (settings[field.name] ?? "") !== ""));
  for (const name of ["temperature", "top_p"]) form.elements[name].placeholder = defaults[name] ?? "server's";
  form.elements.max_tokens.placeholder = format ? (context ? `up to the context, ${context}` : "up to the context") : shortest;
  form.elements.max_tokens.max = context ?? "";
  form.elements.system.closest("label").hidden = !format;
  mark();

  opener.addEventListener("click", () => {
    for (const field of fields) field.value = settings[field.name] ?? "";
    dialog.showModal();
  });
  form.addEventListener("submit", (event) => {  // the browser has checked ranges by now
    event.preventDefault();
    settings = Object.fromEntries(fields.map((field) => [field.name, field.value]));
    writeSettings(settings);
    mark();
    dialog.close();
  });
  byId("settings-reset").addEventListener("click", () => { for (const field of fields) field.value = ""; });
  byId("settings-cancel").addEventListener("click", () => dialog.close());
}

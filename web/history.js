// The list of past conversations: open one, delete one, delete all.

import { announce, byId, h } from "./dom.js";
import { plural } from "./numbers.js";
import * as store from "./store.js";

const when = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

// `current()` is the conversation shown, `open(conversation)` shows another, `removed(ids)` is told
// what was deleted.
export function setUpHistory({ current, open, removed }) {
  const dialog = byId("history"), list = byId("history-list"), clear = byId("history-clear");

  function item(conversation) {
    const name = store.title(conversation);
    const here = conversation.id === current().id;
    const facts = `${when.format(conversation.changed)} · ${plural(conversation.messages.length, "message")}`;
    const show = () => { dialog.close(); open(conversation); };
    const opener = h("button", { type: "button", class: "past", "aria-current": here ? "true" : null, onclick: show },
                     h("span", {}, name), h("small", {}, facts));
    const remover = h("button", { type: "button", class: "quiet", "aria-label": `Delete: ${name}`,
                                  onclick: () => remove([conversation.id]) }, "Delete");
    return h("li", {}, opener, remover);
  }

  function fill() {
    const all = store.conversations();
    list.replaceChildren(...all.map(item));
    if (all.length === 0) list.append(h("li", { class: "soft" }, "None yet."));
    clear.disabled = all.length === 0;
    clear.textContent = "Delete all";
  }

  function remove(ids) {
    ids.forEach(store.remove);
    removed(ids);
    fill();
    announce(`${plural(ids.length, "conversation")} deleted`);
  }

  byId("open-history").addEventListener("click", () => { fill(); dialog.showModal(); });
  byId("history-close").addEventListener("click", () => dialog.close());
  clear.addEventListener("click", () => {  // asks by its own name: the second press deletes
    if (clear.textContent === "Delete all") clear.textContent = "Really delete all?";
    else remove(store.conversations().map((c) => c.id));
  });
}

// The chat: a conversation with the model, streamed, kept in the browser.
//
// One answer at a time is under way. Whatever goes wrong, what the reader typed and what had come
// of the answer stay on the page and in the store.

import { stopped, stream } from "./api.js";
import { forgetMore, history } from "./conversation.js";
import { announce, byId, growWithText, h, sendOnEnter } from "./dom.js";
import { setUpHistory } from "./history.js";
import { modelMessage, userMessage } from "./message.js";
import { count } from "./numbers.js";
import { paced } from "./pace.js";
import { requestMembers, systemMessage } from "./settings.js";
import * as store from "./store.js";

const READ_ALOUD = 600;  // characters; of a longer answer only its length is told
const SAVE_MS = 1000;

// Of the document, which another view may fill at the time.
const isAtEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 60;
const toEnd = () => scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });

// Adds what one event of the stream brings to the answer.
function take(answer, event) {
  const choice = event.choices?.[0];
  if (choice?.delta?.reasoning_content) answer.reasoning = (answer.reasoning ?? "") + choice.delta.reasoning_content;
  if (choice?.delta?.content) answer.content += choice.delta.content;
  if (choice?.finish_reason) answer.finish = choice.finish_reason;
  if (event.usage) answer.usage = event.usage;
  if (event.timings) answer.timings = event.timings;
}

// Kept with an answer as long as it is under way, so that it is known after a reload.
const UNFINISHED = "unfinished";
const problemText = (error) => error.message + (error.retryAfter ? ` (The server asks to wait ${error.retryAfter} s.)` : "");

export function setUpChat(server) {
  const log = byId("messages"), box = byId("message");
  const fit = growWithText(box), isShown = () => !byId("chat-view").hidden;
  let conversation = store.lastConversation();
  let underWay = null;  // the AbortController of the answer under way
  let leaving = false;  // the page itself goes, in the middle of an answer

  function add(message) {
    const view = message.role === "user"
      ? userMessage(message, { onEdit: () => edit(message, view) })
      : modelMessage(message, { model: server.model, onAgain: () => again(message) });
    log.append(view.element);
    return view;
  }

  function updateFrame() {
    byId("welcome").hidden = conversation.messages.length > 0;
    byId("send").hidden = underWay !== null;
    byId("stop").hidden = underWay === null;
    log.classList.toggle("busy", underWay !== null);
    byId("to-end").hidden = isAtEnd();
    const used = conversation.messages.findLast((m) => m.usage)?.usage.total_tokens;
    const full = conversation.forgotten ? `; the ${count(conversation.forgotten)} oldest messages are read no more` : "";
    byId("context").textContent = used && server.context ? `${count(used)} of ${count(server.context)} tokens${full}` : "";
  }

  function showConversation() {
    log.replaceChildren();
    for (const message of conversation.messages) add(message).show?.(true);
    store.showHere(conversation);
    updateFrame();
    toEnd();
  }

  function keep(kept) {
    if (!store.save(kept)) announce("This browser could not keep the conversation");
  }

  async function ask() {
    const mine = conversation;
    if (mine.forgotten >= mine.messages.length) mine.forgotten = 0;  // what was forgotten was taken away
    const answer = { role: "assistant", content: "", finish: UNFINISHED };
    mine.messages.push(answer);
    const view = add(answer), control = new AbortController();
    underWay = control;
    let saved = performance.now();
    const pace = paced(() => {
      const follow = isShown() && isAtEnd();
      view.show(false);
      if (follow) toEnd();
      if (isShown()) byId("to-end").hidden = follow;
    });
    view.show(false);
    updateFrame();
    toEnd();
    announce("The model is answering");
    for (let asking = true; asking;) {
      asking = false;
      try {
        const messages = history(mine.messages, systemMessage(), mine.forgotten);
        const body = { model: server.model, messages, stream: true, stream_options: { include_usage: true }, ...requestMembers() };
        for await (const event of stream("/v1/chat/completions", body, control.signal)) {
          take(answer, event);
          pace.soon();
          if (performance.now() - saved > SAVE_MS) {
            saved = performance.now();
            store.save(mine);
          }
        }
      } catch (error) {
        if (leaving) return;  // a broken connection is this page's own end: what was saved stands
        const forgotten = error.code === "context_length_exceeded" ? forgetMore(mine.messages, mine.forgotten) : null;
        asking = forgotten !== null;
        if (asking) mine.forgotten = forgotten;
        else if (stopped(error)) answer.finish = "stopped";
        else answer.problem = problemText(error);
      }
    }
    if (answer.finish === UNFINISHED) delete answer.finish;
    pace.stop();
    if (underWay === control) underWay = null;
    if (!removed.has(mine.id)) keep(mine);
    if (mine !== conversation) return;
    const follow = isShown() && isAtEnd();
    view.show(true);
    updateFrame();
    if (follow) toEnd();
    const size = answer.content.length;
    if (!answer.problem) announce(size <= READ_ALOUD ? `Answer: ${answer.content}` : `The answer is complete, ${count(size)} characters`);
  }

  const stop = () => underWay?.abort();

  function say(text) {
    conversation.messages.push({ role: "user", content: text });
    add(conversation.messages.at(-1));
    keep(conversation);
    ask();
  }

  // Takes `message` and what follows it away again.
  function cutBefore(message) {
    const at = conversation.messages.indexOf(message);
    conversation.messages.splice(at);
    while (log.children.length > at) log.lastChild.remove();
  }

  function again(message) {
    if (underWay) return;
    cutBefore(message);
    ask();
    box.focus({ preventScroll: true });
  }

  function edit(message, view) {
    if (underWay) return;
    const area = h("textarea", { "aria-label": "Your message", rows: 1 });
    const close = () => { form.replaceWith(view.body); view.element.classList.remove("editing"); };
    const submit = () => {
      const text = area.value.trim();
      if (!text || underWay) return;
      cutBefore(message);
      say(text);
      box.focus({ preventScroll: true });
    };
    const form = h("form", { onsubmit: (event) => { event.preventDefault(); submit(); } }, area,
                   h("div", { class: "row" }, h("span", { class: "grow" }), h("button", { type: "button", class: "quiet", onclick: close }, "Cancel"),
                     h("button", { class: "main" }, "Send")));
    area.value = message.content;
    sendOnEnter(area, submit);
    area.addEventListener("keydown", (event) => event.key === "Escape" && close());
    view.body.replaceWith(form);
    view.element.classList.add("editing");
    growWithText(area)();
    area.focus();
  }

  const removed = new Set();
  function open(other) {
    stop();
    underWay = null;  // its end comes later, and finds another conversation here
    conversation = other;
    showConversation();
    box.focus({ preventScroll: true });
  }
  setUpHistory({
    current: () => conversation,
    open,
    removed: (ids) => {
      for (const id of ids) removed.add(id);
      if (removed.has(conversation.id)) open(store.newConversation());
    },
  });

  const submit = () => {
    const text = box.value.trim();
    if (!text || underWay) return;
    box.value = "";
    store.writeDraft("chat", "");
    fit();
    say(text);
  };
  byId("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  sendOnEnter(box, submit);
  box.addEventListener("input", () => store.writeDraft("chat", box.value));
  byId("stop").addEventListener("click", () => { stop(); box.focus({ preventScroll: true }); });
  byId("new").addEventListener("click", () => open(store.newConversation()));
  byId("to-end").addEventListener("click", toEnd);
  addEventListener("keydown", (event) => event.key === "Escape" && !document.querySelector("dialog[open]") && stop());
  addEventListener("scroll", () => { byId("to-end").hidden = isAtEnd(); }, { passive: true });
  addEventListener("pagehide", () => {
    leaving = underWay !== null;
    if (leaving) store.save(conversation);
  });
  addEventListener("pageshow", () => { leaving = false; });  // it came back as it was

  box.value = store.readDraft("chat");
  showConversation();
  return { shown: () => { fit(); box.focus({ preventScroll: true }); } };
}

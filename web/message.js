// One message of a conversation on the page.

import { copyButton, h } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { plural, speedLine } from "./numbers.js";

const words = (text) => text.split(/\s+/).filter(Boolean).length;

// Why an answer ended, where that is worth a word.
const ENDS = { length: "Cut off here: the most tokens or the context's end were reached.", stopped: "Stopped.",
               unfinished: "The page was left before the answer was complete." };

// A code block gets its language's name and a button that copies it; a wide table scrolls by itself.
function decorate(node) {
  for (const pre of node.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    const language = /language-(\S+)/.exec(code?.className ?? "")?.[1] ?? "";
    const box = h("div", { class: "code" });
    pre.replaceWith(box);
    pre.tabIndex = 0;  // so that the keyboard can scroll it
    const copying = copyButton("Copy", () => pre.textContent, { "aria-label": "Copy the code" });
    box.append(h("div", { class: "code-head" }, h("span", {}, language), copying), pre);
  }
  for (const table of node.querySelectorAll("table")) {
    const box = h("div", { class: "scroll", tabindex: "0" });
    table.replaceWith(box);
    box.append(table);
  }
}

// {element, body}: what the reader wrote, shown as it was written.
export function userMessage(message, { onEdit }) {
  const body = h("div", { class: "plain" }, message.content);
  const edit = h("button", { type: "button", class: "quiet edit", onclick: onEdit }, "Edit");
  const copying = copyButton("Copy", () => message.content, { "aria-label": "Copy this message" });
  const element = h("article", { class: "message user" }, h("h2", { class: "hidden" }, "You"), body, h("div", { class: "tools" }, edit, copying));
  return { element, body };
}

// {element, show(complete)}: the model's answer; `message` may grow between two calls of show.
export function modelMessage(message, { model, onAgain }) {
  const summary = h("summary", {});
  const thoughts = h("div", { class: "markdown" });
  const folded = h("details", { class: "thoughts", hidden: true }, summary, thoughts);
  const body = h("div", { class: "markdown" });
  const waiting = h("p", { class: "waiting", "aria-hidden": "true" }, h("span"), h("span"), h("span"));
  const end = h("p", { class: "soft end", hidden: true });
  const problem = h("div", { class: "problem", role: "alert", hidden: true });
  const again = h("button", { type: "button", class: "quiet again", onclick: onAgain }, "Again");
  const tools = h("div", { class: "tools", hidden: true }, copyButton("Copy", () => message.content, { "aria-label": "Copy this answer" }), again);
  const speed = h("p", { class: "speed", hidden: true });
  const element = h("article", { class: "message model", "aria-busy": "true" }, h("h2", { class: "hidden" }, model),
                    folded, body, waiting, end, problem, tools, speed);
  const views = { body: new MarkdownView(body, decorate), thoughts: new MarkdownView(thoughts, decorate) };

  // Long, and mostly not looked at: they are made into HTML only while they are unfolded.
  let thoughtsShown = "";
  function showThoughts(complete) {
    if (!folded.open || thoughtsShown === message.reasoning) return;
    thoughtsShown = message.reasoning;
    views.thoughts.show(thoughtsShown, complete);
  }
  folded.addEventListener("toggle", () => showThoughts(true));

  function show(complete) {
    const reasoning = message.reasoning ?? "";
    folded.hidden = !reasoning;
    if (reasoning) {
      const under = !complete && !message.content;
      folded.classList.toggle("under-way", under);
      summary.textContent = under ? "Thinking ..." : `Thoughts (${plural(words(reasoning), "word")})`;
      showThoughts(complete);
    }
    views.body.show(message.content, complete);
    waiting.hidden = complete || Boolean(message.content || reasoning);
    if (!complete) return;
    element.removeAttribute("aria-busy");
    end.textContent = ENDS[message.finish] ?? (message.content || message.problem ? "" : "The answer is empty.");
    end.hidden = !end.textContent;
    problem.hidden = !message.problem;
    if (message.problem) {
      problem.replaceChildren(h("p", {}, message.problem), h("button", { type: "button", class: "again", onclick: onAgain }, "Try again"));
    }
    tools.hidden = Boolean(message.problem) && !message.content;
    speed.textContent = speedLine(message.usage, message.timings);
    speed.hidden = !speed.textContent;
  }
  return { element, show };
}

// The page: finds out what the server serves, shows the views, and keeps an eye on the server.

import { exists, getJson } from "./api.js";
import { setUpChat } from "./chat.js";
import { byId, copyButton, h } from "./dom.js";
import { setUpKeyField } from "./key.js";
import { count, plural } from "./numbers.js";
import { setUpServer } from "./server.js";
import { setUpSettings } from "./settings.js";
import { setUpText, TOKENS } from "./text.js";

const LOOK_MS = 1000, LOOK_AGAIN_MS = 4000;  // between two looks at the server; while it does not answer

const server = {};  // the last answer of GET /v1/server
const views = {};   // by hash: {section, scroll, shown()}

function showView() {
  const wanted = location.hash.slice(1);
  const name = wanted in views ? wanted : document.body.dataset.view ?? "chat";  // "#main" is no view
  const before = views[document.body.dataset.view];
  if (before) before.scroll = innerHeight + scrollY >= document.documentElement.scrollHeight - 1 && scrollY > 0 ? Infinity : scrollY;
  for (const [key, view] of Object.entries(views)) {
    view.section.hidden = key !== name;
    if (key === name) byId(`tab-${key}`).setAttribute("aria-current", "page");
    else byId(`tab-${key}`).removeAttribute("aria-current");
  }
  document.body.dataset.view = name;
  document.title = `${server.model} · Cachalot`;
  views[name].shown?.();
  scrollTo({ top: Math.min(views[name].scroll ?? 0, document.documentElement.scrollHeight), behavior: "instant" });
}

function showStatus(problem) {
  const { running = 0, waiting = 0 } = server.engine ?? {};
  byId("status-model").textContent = server.model ?? "";
  byId("status").dataset.state = problem ? "away" : running + waiting > 0 ? "busy" : "idle";
  const work = running + waiting === 0 ? "idle" : `${count(running)} running` + (waiting ? `, ${count(waiting)} waiting` : "");
  byId("status-text").textContent = problem ? "not answering" : work;
  byId("server-problem").hidden = !problem;
  byId("server-problem").textContent = problem ?? "";
}

// Asks once a second while anybody can see the page. A hidden page asks nothing.
function watch(live) {
  let timer = 0, asking = false;
  async function look() {
    clearTimeout(timer);
    if (document.hidden || asking) return;
    asking = true;
    let problem = null;
    try {
      Object.assign(server, await getJson("/v1/server", { ask: false, signal: AbortSignal.timeout(10000) }));
      live.update(server, performance.now() / 1000);
    } catch (error) {
      problem = error.name === "TimeoutError" ? "The server took longer than ten seconds to answer." : error.message;
    }
    asking = false;
    showStatus(problem);
    timer = setTimeout(look, problem ? LOOK_AGAIN_MS : LOOK_MS);
  }
  document.addEventListener("visibilitychange", look);
  look();
}

function welcome() {
  const facts = [server.precision, server.context && `${count(server.context)} tokens of context`, server.threads && plural(server.threads, "thread")];
  byId("welcome").querySelector("h2").textContent = server.model;
  byId("welcome").querySelector("p").textContent = facts.filter(Boolean).join(" · ");
  const body = JSON.stringify({ model: server.model, messages: [{ role: "user", content: "Hello" }] });
  const curl = byId("curl");
  const quoted = `'${body.replaceAll("'", "'\\''")}'`;
  curl.textContent = `curl ${location.origin}/v1/chat/completions \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted}`;
  const copying = copyButton("Copy", () => curl.textContent, { "aria-label": "Copy the command" });
  curl.closest(".code").prepend(h("div", { class: "code-head" }, h("span", {}, "sh"), copying));
}

async function addPlan() {
  if (!(await exists("/plan"))) return;
  byId("tab-plan").hidden = false;
  const section = byId("plan-view");
  views.plan = { section, shown: () => {
    if (!section.firstChild) section.append(h("iframe", { src: "/plan", sandbox: "allow-scripts", title: "What this model costs on other machines" }));
  } };
  if (location.hash === "#plan") showView();
}

async function start() {
  byId("no-start").hidden = true;
  byId("starting").hidden = false;
  try {
    Object.assign(server, await getJson("/v1/server"));
  } catch (error) {
    byId("starting").hidden = true;
    byId("no-start").hidden = false;
    byId("no-start").querySelector("p").textContent = error.message;
    return;
  }
  byId("starting").hidden = true;
  const chats = Boolean(server.format), chat = byId(chats ? "chat-view" : "text-view");
  byId("tab-chat").textContent = chats ? "Chat" : "Text";
  chat.querySelector(".settings-place").replaceWith(h("button", { type: "button", class: "quiet", id: "open-settings" }, "Settings"));
  setUpSettings({ ...server, shortest: TOKENS });
  if (chats) welcome();
  views.chat = { section: chat, scroll: Infinity, ...(chats ? setUpChat(server) : setUpText(server)) };
  views.server = { section: byId("server-view") };
  showView();
  watch(setUpServer());
  addPlan();
}

setUpKeyField();
addEventListener("hashchange", () => views.chat && showView());
byId("no-start").querySelector("button").addEventListener("click", start);
start();

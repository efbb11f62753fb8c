// What the browser keeps: conversations and settings (localStorage), which conversation this tab
// shows and what was typed and not sent (sessionStorage). A browser that keeps nothing, or has no
// room left, costs the reload, never the page.

const CONVERSATION = "cachalot.conversation.";
const SETTINGS = "cachalot.settings";
const HERE = "cachalot.here";
const DRAFT = "cachalot.draft.";
const MOST = 100;  // conversations; older ones go

function read(storage, name) {
  try { return JSON.parse(window[storage].getItem(name)); } catch { return null; }
}
function write(storage, name, value) {
  try {
    if (value === null) window[storage].removeItem(name);
    else window[storage].setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

export const readSettings = () => read("localStorage", SETTINGS) ?? {};
export const writeSettings = (settings) => write("localStorage", SETTINGS, settings);

export const readDraft = (view) => read("sessionStorage", DRAFT + view) ?? "";
export const writeDraft = (view, text) => write("sessionStorage", DRAFT + view, text || null);

// A conversation: {id, changed (ms since 1970), messages: [{role, content, reasoning, ...}]}.
export const newConversation = () => ({ id: Date.now().toString(36) + Math.random().toString(36).slice(2, 8), changed: Date.now(), messages: [] });
export const title = (conversation) => conversation.messages.find((m) => m.role === "user")?.content.trim().slice(0, 80) || "Empty conversation";

export function conversations() {
  let names = [];
  try { names = Object.keys(localStorage).filter((name) => name.startsWith(CONVERSATION)); } catch { /* none, then */ }
  return names.map((name) => read("localStorage", name)).filter((c) => Array.isArray(c?.messages)).sort((a, b) => b.changed - a.changed);
}

// The one this tab showed before it was reloaded; else the newest.
export function lastConversation() {
  const here = read("sessionStorage", HERE);
  const all = conversations();
  return (here && all.find((c) => c.id === here)) ?? (here ? newConversation() : all[0] ?? newConversation());
}

export const showHere = (conversation) => write("sessionStorage", HERE, conversation.id);

// False where the browser did not keep it.
export function save(conversation) {
  if (conversation.messages.length === 0) return remove(conversation.id);
  conversation.changed = Date.now();
  if (!write("localStorage", CONVERSATION + conversation.id, conversation)) return false;
  for (const old of conversations().slice(MOST)) remove(old.id);
  return true;
}

export const remove = (id) => write("localStorage", CONVERSATION + id, null);

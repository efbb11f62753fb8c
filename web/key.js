// The field for the API key: below the header, shown when a request was answered with 401, gone
// when a key was given. Requests that wait for it share one question.

import { onKeyNeeded, useKey } from "./api.js";
import { byId } from "./dom.js";

export function setUpKeyField() {
  const form = byId("key-form"), input = byId("key"), message = byId("key-message");
  let waiting = null, answer = null;

  function close(given) {
    form.hidden = true;
    const tell = answer;
    waiting = answer = null;
    tell?.(given);
  }

  onKeyNeeded((text) => {
    message.textContent = text;
    form.hidden = false;
    input.focus();
    input.select();
    waiting ??= new Promise((resolve) => { answer = resolve; });
    return waiting;
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const value = input.value.trim();
    if (!value) return;
    useKey(value);
    close(true);
  });
  byId("key-later").addEventListener("click", () => close(false));
}

// Server-sent events out of the bytes of a response, wherever the network cuts them: inside a
// character, a line or a pair of CR and LF.
//
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

export class SseParser {
  #decoder = new TextDecoder();  // takes away a byte order mark, keeps half a character for later
  #line = "";                    // begun and not ended
  #data = null;                  // the lines of the event under way; null: none yet
  #skipLf = false;               // the last character was a CR: an LF after it ends no second line

  // Bytes (Uint8Array) in, the data of every event that they complete out.
  push(bytes) {
    const events = [];
    this.#read(this.#decoder.decode(bytes, { stream: true }), events);
    return events;
  }

  // The end of the stream. An event without its blank line was cut off and does not count.
  finish() {
    const events = [];
    this.#read(this.#decoder.decode(), events);
    this.#data = null;
    this.#line = "";
    return events;
  }

  #read(text, events) {
    let start = 0;
    for (let i = 0; i < text.length; i++) {
      const c = text[i];
      if (c === "\n" && this.#skipLf) {
        this.#skipLf = false;
        start = i + 1;
        continue;
      }
      this.#skipLf = c === "\r";
      if (c !== "\n" && c !== "\r") continue;
      this.#endLine(this.#line + text.slice(start, i), events);
      this.#line = "";
      start = i + 1;
    }
    this.#line += text.slice(start);
  }

  #endLine(line, events) {
    if (line === "") {
      if (this.#data !== null) events.push(this.#data.join("\n"));
      this.#data = null;
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    if (field !== "data") return;  // comments (": ...") and fields that this API does not use
    const value = colon < 0 ? "" : line.slice(colon + 1);
    (this.#data ??= []).push(value.startsWith(" ") ? value.slice(1) : value);
  }
}

// Answers as HTML that can neither run nor load anything.
//
// A model's text is a stranger's: marked reads it as Markdown, HTML in it is shown as the text it
// is, images become links, and what comes out goes through DOMPurify with a short list of what may
// stay. The server's Content-Security-Policy is the third wall.

const TAGS = ["a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "strong",
              "table", "tbody", "td", "th", "thead", "tr", "ul"];
const ATTRIBUTES = ["align", "class", "href", "start", "title"];
const ADDRESS = /^(?:https?:\/\/|mailto:)/i;  // nothing relative: a link is never into this page

const escaped = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

// Formulas keep their source: \(...\), \[...\] and $$...$$ would else lose backslashes and stars.
const FORMULA = /^(?:\\\(([^]+?)\\\)|\\\[([^]+?)\\\]|\$\$([^]+?)\$\$)/;
const formulaCode = ({ text }) => `<code class="formula">${escaped(text)}</code>`;
function formula(level, start, fits, renderer) {
  const type = `${level}Formula`;
  const tokenizer = (src) => {
    const match = FORMULA.exec(src);
    if (!match || !fits(match[0], src)) return undefined;
    return { type, raw: match[0], text: (match[1] ?? match[2] ?? match[3]).trim() };
  };
  return { name: type, level, start: (src) => src.match(start)?.index, tokenizer, renderer };
}
const FORMULAS = [
  // On lines of its own it may hold empty lines; inside a paragraph it is a part of that.
  formula("block", /\n(?=\\\[|\$\$)/, (raw, src) => !raw.startsWith("\\(") && /^[ \t]*(?:\n|$)/.test(src.slice(raw.length)),
          (token) => `<p>${formulaCode(token)}</p>\n`),
  formula("inline", /\\[([]|\$\$/, () => true, formulaCode),
];

// `marked` is the library as its script leaves it in the page (tests hand in their own).
export function makeReader(marked = globalThis.marked) {
  return new marked.Marked({
    gfm: true,
    breaks: false,
    renderer: {
      html: ({ text, block }) => (block ? `<p>${escaped(text.trim()).replace(/\n/g, "<br>")}</p>\n` : escaped(text)),
      image: ({ href, text }) => (ADDRESS.test(href) ? `<a href="${escaped(href)}">${escaped(text || "image")}</a>` : escaped(text)),
      heading({ tokens, depth }) {  // below the page's h1 and the message's h2
        const name = `h${Math.min(6, depth + 2)}`;
        return `<${name}>${this.parser.parseInline(tokens)}</${name}>\n`;
      },
      checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    },
  }, { extensions: FORMULAS });
}

let reader = null, purify = null;
function setUp() {
  if (reader) return;
  reader = makeReader();
  purify = globalThis.DOMPurify(window);
  purify.addHook("uponSanitizeAttribute", (node, attribute) => {
    if (attribute.attrName === "href" && !ADDRESS.test(attribute.attrValue)) attribute.keepAttr = false;
    const classes = node.nodeName === "CODE" && /^(?:language-[\w+#.-]+|formula)$/.test(attribute.attrValue);
    if (attribute.attrName === "class" && !classes) attribute.keepAttr = false;
  });
  purify.addHook("afterSanitizeAttributes", (node) => {
    if (node.nodeName !== "A" || !node.hasAttribute("href")) return;
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer");
  });
}

// HTML of any origin as a DocumentFragment of which nothing runs or loads.
export function sanitized(html) {
  setUp();
  return purify.sanitize(html, { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ATTRIBUTES, ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false,
                                 ALLOWED_URI_REGEXP: ADDRESS, ADD_URI_SAFE_ATTR: ["align", "start"], RETURN_DOM_FRAGMENT: true });
}

// The blocks of a text that grows at its end. All but the last two are settled and not read again,
// so that a long answer costs no more per token than a short one. What settled wrongly (an address
// that stands below its link, a formula of many paragraphs) comes right when the text is complete.
export class GrowingText {
  #reader;
  #settled = [];
  #end = 0;  // of what is settled, in characters

  constructor(reader) { this.#reader = reader; }

  // {blocks, links}: marked's tokens, and whether the text held addresses for its links.
  read(text, complete) {
    if (complete) {
      this.#settled = [];
      this.#end = 0;
    }
    const tokens = this.#reader.lexer(text.slice(this.#end));
    const fresh = tokens.filter((token) => token.type !== "space");
    const blocks = [...this.#settled, ...fresh];
    const open = fresh.at(-2);
    for (const token of open ? tokens.slice(0, tokens.indexOf(open)) : []) {
      if (!text.startsWith(token.raw, this.#end)) break;  // read another way than it stands: try later
      this.#end += token.raw.length;
      if (token.type !== "space") this.#settled.push(token);
    }
    return { blocks, links: Object.keys(tokens.links).length > 0 };
  }
}

// Markdown that grows on the page: blocks that did not change keep their elements, so that a selection, a
// focused button and the reader's place in a wide table stay while the answer is being written.
export class MarkdownView {
  #host;
  #decorate;
  #text;
  #blocks = [];  // {raw, node}

  // `decorate(node)` is called with each new block's element.
  constructor(host, decorate = () => {}) {
    setUp();
    this.#host = host;
    this.#decorate = decorate;
    this.#text = new GrowingText(reader);
  }

  // `complete`: no more will come. A link's address may stand below it, so that all is made again.
  show(text, complete) {
    const { blocks, links } = this.#text.read(text, complete);
    const again = complete && links;
    let same = 0;
    while (!again && same < blocks.length && this.#blocks[same]?.raw === blocks[same].raw) same++;
    for (const old of this.#blocks.splice(same)) old.node.remove();
    for (const token of blocks.slice(same)) {
      const node = document.createElement("div");
      node.append(sanitized(reader.parser([token])));
      this.#decorate(node);
      this.#host.append(node);
      this.#blocks.push({ raw: token.raw, node });
    }
  }
}

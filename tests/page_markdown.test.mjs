// node --test tests/page_markdown.test.mjs: what the page makes of Markdown before DOMPurify, which
// needs a browser: already here no HTML, image or script of the text may become an element.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test from "node:test";

import { GrowingText, makeReader } from "../web/markdown.js";

const reader = makeReader(createRequire(import.meta.url)("../third_party/marked/marked.umd.js"));
const html = (text) => reader.parser(reader.lexer(text)).trim();

test("HTML in a text is shown as the text it is", () => {
  assert.equal(html("a <b onclick=x>c</b>"), "<p>a &#60;b onclick=x&#62;c&#60;/b&#62;</p>");
  assert.equal(html("<script>\nalert(1)\n</script>"), "<p>&#60;script&#62;<br>alert(1)<br>&#60;/script&#62;</p>");
  assert.doesNotMatch(html("<img src=x onerror=alert(1)>"), /<img/);
});

test("images become links, or their text where the address is no web address", () => {
  assert.equal(html("![plot \"1\"](https://a.example/p.png)"), '<p><a href="https://a.example/p.png">plot &#34;1&#34;</a></p>');
  assert.equal(html("![](https://a.example/p.png)"), '<p><a href="https://a.example/p.png">image</a></p>');
  for (const address of ["javascript:alert(1)", "data:text/html,x", "p.png", "//a.example/p.png"]) assert.equal(html(`![x](${address})`), "<p>x</p>");
});

test("a code block keeps its text and its language", () => {
  assert.equal(html("```c++\na<b> && c\n```"), '<pre><code class="language-c++">a&lt;b&gt; &amp;&amp; c\n</code></pre>');
});

test("formulas keep their backslashes, stars and underscores", () => {
  assert.equal(html("with \\(a_1 * b_1 * \\frac{c}{d}\\) in it"), '<p>with <code class="formula">a_1 * b_1 * \\frac{c}{d}</code> in it</p>');
  assert.equal(html("\\[\nx < 1\n\ny\n\\]\n\nafter"), '<p><code class="formula">x &#60; 1\n\ny</code></p>\n<p>after</p>');
  assert.equal(html("$$\na_b\n$$"), '<p><code class="formula">a_b</code></p>');
  assert.equal(html("before\n\\[\nx\n\\]"), '<p>before</p>\n<p><code class="formula">x</code></p>');
});

test("money and escaped brackets are no formulas", () => {
  assert.equal(html("5$ and 6$"), "<p>5$ and 6$</p>");
  assert.equal(html("\\*no\\* \\(open"), "<p>*no* (open</p>");
});

test("headings begin below those of the page and of the message", () => {
  assert.equal(html("# a *b*"), "<h3>a <em>b</em></h3>");
  assert.equal(html("###### a"), "<h6>a</h6>");
});

test("tasks are marks, not controls", () => assert.match(html("- [x] a\n- [ ] b"), /<li>☑ a<\/li>\n<li>☐ b<\/li>/));

const DOCUMENT = "# Title\n\nA paragraph\nof two lines.\n\n- one\n\n- two\n  - three\n\n```c\nint x;\n\n\n# no title\n```\n\n| a | b |\n|--|--|\n| 1 | 2 |\n\n"
               + "> quoted\ngoes on\n\n1. first\n\n   more of it\n2. second\n\nUnder\n-----\n\n<b>\n\n$$\na\n$$\n\n***\n\nThe end.\n";

test("a text that grows character by character has the blocks of the whole text", () => {
  const raws = (blocks) => blocks.map((block) => block.raw);
  const whole = raws(reader.lexer(DOCUMENT).filter((token) => token.type !== "space"));
  const growing = new GrowingText(reader);
  for (let end = 1; end < DOCUMENT.length; end++) growing.read(DOCUMENT.slice(0, end), false);
  assert.deepEqual(raws(growing.read(DOCUMENT, false).blocks), whole);
  assert.deepEqual(raws(growing.read(DOCUMENT, true).blocks), whole);
});

test("what is settled is not read again", () => {
  let characters = 0;
  const growing = new GrowingText({ lexer: (text) => { characters += text.length; return reader.lexer(text); } });
  const text = "A paragraph.\n\n".repeat(1000);
  growing.read(text, false);
  characters = 0;
  assert.equal(growing.read(`${text}More.`, false).blocks.length, 1001);
  assert.ok(characters < 100, `${characters} characters were read again`);
});

test("an address below its link is found when the text is complete", () => {
  const growing = new GrowingText(reader), start = "[link]\n\n" + "text\n\n".repeat(5);
  growing.read(start, false);
  const { blocks, links } = growing.read(`${start}[link]: https://a.example\n`, true);
  assert.ok(links);
  assert.equal(reader.parser([blocks[0]]).trim(), '<p><a href="https://a.example">link</a></p>');
});

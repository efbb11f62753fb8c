// node --test tests/page_markdown.test.mjs: what the page makes of Markdown before DOMPurify, which
// needs a browser: already here no HTML, image or script of the text may become an element.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test from "node:test";

import { makeReader } from "../web/markdown.js";

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

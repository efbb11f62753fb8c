#!/usr/bin/env python3
"""Looks at a page that `--html` wrote, as a browser would take it apart, and prints one JSON object about it.

html_page.py PAGE [RESULT.json]: `doctype`, `loads` (whatever the page would fetch), `problems` (broken structure),
`tables`, `charts`, `sliders`, `words` (its text), `data` (the JSON in it), `same` (its result is RESULT.json's)."""
import html.parser
import json
import re
import sys

VOID = {"meta", "input", "link", "img", "br", "hr", "rect", "line", "path", "circle", "polyline"}
FETCHES = re.compile(r"@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|\bimport\s*\(|importScripts|\bsrc\s*=")


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.refs = [], [], []
        self.loads, self.problems, self.words = [], [], []
        self.tables = self.charts = self.sliders = self.unlabelled = 0
        self.labels, self.inputs, self.data, self.scripts = set(), set(), None, 0

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster", "action", "xlink:href") or name.startswith("on"):
                self.loads.append(f"{tag} {name}={value}")
            if name == "href" and not (value or "").startswith("#"):
                self.loads.append(f"{tag} href={value}")
            if name == "style" and "url(" in (value or ""):
                self.loads.append(f"{tag} style={value}")
        if tag in ("link", "iframe", "object", "embed", "base", "img", "image", "use"):
            self.loads.append(tag)
        if "id" in a:
            self.ids.append(a["id"])
        if tag == "a":
            self.refs.append(a.get("href", "")[1:])
        if tag == "label" and "for" in a:
            self.labels.add(a["for"])
        if tag == "input" and a.get("type") == "range":
            self.sliders += 1
            self.inputs.add(a.get("id"))
        self.tables += tag == "table"
        self.charts += "data-chart" in a or "data-measure" in a
        if tag == "script":
            self.scripts += 1
            self.kind = a.get("type")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, text):
        where = self.open[-1] if self.open else ""
        if where == "script" and self.kind == "application/json":
            self.data = json.loads(text)
        elif where in ("script", "style"):
            self.loads += [f"{where}: {found}" for found in FETCHES.findall(text)]
        else:
            self.words.append(text)


def main():
    text = open(sys.argv[1], encoding="utf-8").read()
    page = Page()
    page.feed(text)
    page.close()
    problems = page.problems + [f"<{tag}> is never closed" for tag in page.open]
    problems += [f"id {i} twice" for i in set(page.ids) if page.ids.count(i) > 1]
    problems += [f"#{r} leads nowhere" for r in page.refs if r not in page.ids]
    problems += [f"slider {i} has no label" for i in page.inputs - page.labels]
    if page.scripts != 3:
        problems.append(f"{page.scripts} scripts, not three")
    out = {"doctype": text.startswith("<!doctype html>"), "loads": page.loads, "problems": problems, "tables": page.tables,
           "charts": page.charts, "sliders": page.sliders, "words": " ".join("".join(page.words).split()), "data": page.data}
    if len(sys.argv) > 2:
        out["same"] = page.data["result"] == json.load(open(sys.argv[2]))
    print(json.dumps(out))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Fails on a source file over 800 lines or a function over 120 lines (300 in a GPU kernel, whose warps' roles share barriers)."""
import re

from common import arguments, finish, sources

MAX_FILE = 800
MAX_FUNCTION = 120
MAX_KERNEL = 300  # .cu and .cuh: producers and consumers of one kernel are its branches

# What is not code, longest first: raw strings, comments, strings, characters (not the ' in 1'000).
NOISE = re.compile(r'R"([^(\s]*)\(.*?\)\1"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"'
                   r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.S)
PREPROCESSOR = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.M)
TEMPLATE = re.compile(r"\btemplate\s*<[^{;]*?>\s*(?=[\w\[:])")
CONTAINER = re.compile(r"\b(namespace|class|struct|union|enum)\b|\bextern\s*$")


def blank(match):
    return "\n" * match.group(0).count("\n")


def after_container(head):
    """What follows the first `namespace`, `class`... of a head (macros may stand before), or all of it without one."""
    found = CONTAINER.search(head)
    return re.sub(r"alignas\s*\([^)]*\)", "", head[found.end():] if found else head)


def long_functions(text, limit=MAX_FUNCTION):
    """(first line, lines) of every function body over the limit."""
    text = PREPROCESSOR.sub(blank, NOISE.sub(blank, text))
    found, stack = [], []  # stack: True where the open brace is a container (namespace, class)
    head, line = [], 1     # what stands before the next brace; head_line is where it begins
    head_line = 1
    for char in text:
        if char == "{":
            before = TEMPLATE.sub("", "".join(head))
            # Inside a function everything counts to it; a brace without "(" before it is data or a container.
            if any(kind == "function" for kind, _ in stack):
                stack.append(("inner", line))
            elif "(" not in after_container(before):
                stack.append(("container", line))
            else:
                stack.append(("function", head_line))
            head = []
        elif char == "}":
            if stack:
                kind, first = stack.pop()
                if kind == "function" and line - first + 1 > limit:
                    found.append((first, line - first + 1))
            head = []
        elif char == ";":
            head = []
        else:
            if not head and not char.isspace():
                head_line = line
            if head or not char.isspace():
                head.append(char)
        if char == "\n":
            line += 1
    return found


def main():
    root = arguments(__doc__).root
    findings, files = [], sources(root)
    for path in files:
        text = path.read_text(errors="replace")
        name, lines = path.relative_to(root), text.count("\n")
        if lines > MAX_FILE:
            findings.append(f"{name}: {lines} lines; a file holds one idea in at most {MAX_FILE}: split it")
        limit = MAX_KERNEL if path.suffix in (".cu", ".cuh") else MAX_FUNCTION
        for first, length in long_functions(text, limit):
            findings.append(f"{name}:{first}: a function of {length} lines; at most {limit}: split it")
    finish("sizes", findings, len(files))


if __name__ == "__main__":
    main()

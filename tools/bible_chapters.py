#!/usr/bin/env python3
"""The King James Bible as `bible -f Gen1:1-Rev22:21` prints it, its chapters in a drawn order.

    bible -f Gen1:1-Rev22:21 </dev/null | tools/bible_chapters.py > bible-chapters.txt

In the order of the books the last tenth is letters where the rest is mostly histories, laws and psalms, under names of books that
the rest does not have: what is held out there is another kind of text. Drawn, any tenth is chapters of all books. The order is that
of the SHA-256 of the chapters' names ("Ge1", "Rev22"), so it is the same everywhere.
"""
import hashlib
import re
import sys

VERSE = re.compile(rb"([1-3]?[A-Za-z]+[0-9]+):[0-9]+ ")


def chapters(text):
    """{name: its verses}, in the order of the text; a line that begins no verse belongs to the one before it."""
    found, name = {}, None
    for line in text.splitlines(keepends=True):
        verse = VERSE.match(line)
        if verse:
            name = verse[1]
        if name is None:
            sys.exit(f"bible_chapters: the text begins with {line[:40]!r}, which is no verse as `bible -f` prints one (\"Ge1:1 In the ...\")")
        found[name] = found.get(name, b"") + line
    return found


def drawn(text):
    """The same chapters, in the order of their names' hashes."""
    found = chapters(text)
    return b"".join(found[name] for name in sorted(found, key=lambda name: hashlib.sha256(name).digest()))


def main():
    sys.stdout.buffer.write(drawn(sys.stdin.buffer.read()))


if __name__ == "__main__":
    main()

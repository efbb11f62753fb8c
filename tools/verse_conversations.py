#!/usr/bin/env python3
"""Conversations to fine-tune a small model on, made out of the King James Bible as Debian's package bible-kjv prints it.

    tools/verse_conversations.py --out runs/verse-conversations
    cachalot train configs/verses.toml

DIR/train.jsonl and DIR/held-out.jsonl have one conversation a line, {"messages": [{"role", "content"}, ...]}. Chapters are held out
whole: what is in held-out.jsonl is of other chapters than train.jsonl. As many conversations of each kind, in a drawn order:

    continue  "Continue: " and the first half of a verse; the answer is the other half
    reverse   "Reverse the order of these words: " and 3 to 6 words of a verse; the answer is those, the last one first
    count     "How many words: " and 2 to 12 words of a verse; the answer is a number
    next      as continue, then "And the next verse?"; the answer is the verse that follows

Answers of reverse and count follow from the question alone: a held-out one that is right shows that the task was learnt. Those of
continue and next are mostly beyond what a small model can know; their loss shows how well it writes such text.
The same text, count, seed and share give the same files.
"""
import argparse
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys

import bible_chapters
from study import BIBLE

WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
REFERENCE = re.compile(r"[1-3]?[A-Za-z]+[0-9]+:[0-9]+ ")


def leave(text):
    sys.exit(f"verse_conversations: {text}")


def below(rng, n):
    """A drawn number of range(n). Of Python's generator only random() is promised to stay as it is."""
    return int(rng.random() * n)


def shuffled(rng, things):
    things = list(things)
    for i in range(len(things) - 1, 0, -1):
        k = below(rng, i + 1)
        things[i], things[k] = things[k], things[i]
    return things


def verses(chapter):
    """The verses of a chapter without their references; a line that begins none belongs to the one before it."""
    found = []
    for line in chapter.splitlines():
        reference = REFERENCE.match(line)
        if reference:
            found.append(line[reference.end():].strip())
        elif line.strip():
            found[-1] += " " + line.strip()
    return found


def turns(*texts):
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]}


def some_words(rng, verse, fewest, most):
    """Drawn neighbours of a verse, without what stands between words; None where it has too few."""
    words = WORD.findall(verse)
    if len(words) < fewest:
        return None
    count = fewest + below(rng, min(most, len(words)) - fewest + 1)
    begin = below(rng, len(words) - count + 1)
    return words[begin:begin + count]


def halves(verse):
    words = verse.split()
    return " ".join(words[:len(words) // 2]), " ".join(words[len(words) // 2:])


# Each makes a conversation of a verse and the one that follows in its chapter (None for the last); None where they do not do.
def continue_verse(_rng, verse, _following):
    first, second = halves(verse)
    return turns(f"Continue: {first}", second) if first else None


def reverse_words(rng, verse, _following):
    words = some_words(rng, verse, 3, 6)
    return words and turns(f"Reverse the order of these words: {' '.join(words)}", " ".join(reversed(words)))


def count_words(rng, verse, _following):
    words = some_words(rng, verse, 2, 12)
    return words and turns(f"How many words: {' '.join(words)}", str(len(words)))


def next_verse(_rng, verse, following):
    first, second = halves(verse)
    return turns(f"Continue: {first}", second, "And the next verse?", following) if first and following else None


KINDS = {"continue": continue_verse, "reverse": reverse_words, "count": count_words, "next": next_verse}


def conversations(rng, chapters, count, where):
    """`count` of them, as many of each kind. Each kind goes through all verses in an order of its own before it meets one again."""
    pairs = [pair for chapter in chapters for pair in zip(chapter, [*chapter[1:], None])]
    made = []
    for number, (kind, make) in enumerate(KINDS.items()):
        wanted = count // len(KINDS) + (number < count % len(KINDS))
        while wanted > 0:
            round_of = []
            for pair in shuffled(rng, pairs):
                conversation = make(rng, *pair) if len(round_of) < wanted else None
                if conversation:
                    round_of.append(conversation)
            if not round_of:
                leave(f"no verse of the {where} chapters does for a conversation of the kind {kind!r}: give more text")
            made += round_of
            wanted -= len(round_of)
    return shuffled(rng, made)


def held_apart(rng, chapters, share):
    """The chapters to train on and those held out, at least one of either."""
    if len(chapters) < 2:
        leave(f"the text has {len(chapters)} chapter(s); it needs 2 or more, for one is held out: give more text")
    held = set(shuffled(rng, chapters)[:min(max(round(len(chapters) * share), 1), len(chapters) - 1)])
    return [name for name in chapters if name not in held], [name for name in chapters if name in held]


def text_of(file):
    if file is not None:
        try:
            return file.read_bytes()
        except OSError as error:
            leave(f"--text {file}: {error.strerror}")
    if shutil.which(BIBLE[0]) is None:
        leave("the text is the King James Bible of Debian's package bible-kjv, which is not installed: "
              "`tools/install_debian.sh demo` does that, or name a file of its form with --text FILE")
    return subprocess.run(BIBLE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout


def write(path, made):
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in made), encoding="utf-8")
    os.replace(part, path)
    print(f"{path}: {len(made)} conversations")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder for the two files; made where it is not there")
    parser.add_argument("--count", type=int, default=20000, metavar="N", help="conversations in both files together (default 20000)")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn (default 1)")
    parser.add_argument("--held-out", type=float, default=0.1, metavar="SHARE", help="of chapters and of conversations (default 0.1)")
    parser.add_argument("--text", type=pathlib.Path, metavar="FILE",
                        help="a text of the form that `bible -f` prints, a verse a line (\"Ge1:1 In the beginning ...\"); the program is not run then")
    args = parser.parse_args()
    if not 0 < args.held_out < 1:
        parser.error(f"--held-out {args.held_out}: a share between 0 and 1 is needed, such as 0.1")
    if not 1 <= round(args.count * args.held_out) < args.count:
        parser.error(f"--count {args.count} with --held-out {args.held_out} leaves one of the two files empty: make more conversations")
    return args


def main():
    args = arguments()
    text = text_of(args.text)
    try:
        decoded = {name: verses(chapter.decode()) for name, chapter in bible_chapters.chapters(text).items()}
    except UnicodeDecodeError as error:
        leave(f"the text is not UTF-8: {error}")
    rng = random.Random(args.seed)
    train, held = held_apart(rng, decoded, args.held_out)
    held_count = round(args.count * args.held_out)
    parts = {"train": (train, args.count - held_count), "held-out": (held, held_count)}
    made = {name: conversations(rng, [decoded[chapter] for chapter in chapters], count, name) for name, (chapters, count) in parts.items()}
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        for name, part in made.items():
            write(args.out / f"{name}.jsonl", part)
    except OSError as error:
        leave(f"--out {args.out}: {error.strerror}: {error.filename}")


if __name__ == "__main__":
    main()

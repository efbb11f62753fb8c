#!/usr/bin/env python3
"""Tests of tools/verse_conversations.py, on a text made here."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[1] / "tools" / "verse_conversations.py"
# Ten chapters of three verses; every word says which verse it is of, and where in it.
VERSES = {(c, v): [f"c{'abcdefghij'[c]}v{'xyz'[v]}w{'abcdefg'[w]}" for w in range(7)] for c in range(10) for v in range(3)}
TEXT = "".join(f"Ge{c + 1}:{v + 1} {' '.join(words)}.\n".replace("wd ", "wd,\n  ") for (c, v), words in VERSES.items())


def run(folder, *options, text=TEXT):
    given = pathlib.Path(folder) / "text"
    given.write_text(text)
    return subprocess.run([sys.executable, TOOL, "--out", folder, "--text", given, *options], capture_output=True, text=True, check=False)


def made(*options):
    """The conversations of both files: lists of texts."""
    with tempfile.TemporaryDirectory() as folder:
        done = run(folder, *options)
        assert done.returncode == 0, done.stderr
        files = []
        for name in ("train", "held-out"):
            lines = (pathlib.Path(folder) / f"{name}.jsonl").read_text().splitlines()
            files.append([json.loads(line)["messages"] for line in lines])
        return files


def chapters_of(messages):
    text = " ".join(message["content"] for message in messages)
    return {word[1] for word in text.replace(".", "").replace(",", "").split() if word[0] == "c" and word[2:3] == "v"}


class VerseConversations(unittest.TestCase):
    def test_every_answer_is_what_its_question_asks_for(self):
        verses = [" ".join(words).replace("wd ", "wd, ") + "." for words in VERSES.values()]
        kinds = {}
        for messages in [one for file in made("--count", "400") for one in file]:
            self.assertEqual([m["role"] for m in messages], ["user", "assistant"] * (len(messages) // 2))
            texts = [m["content"] for m in messages]
            task, _, rest = texts[0].partition(": ")
            kind = "next" if len(texts) == 4 else task
            kinds[kind] = kinds.get(kind, 0) + 1
            if task == "Continue":
                self.assertIn(f"{rest} {texts[1]}", verses)
                self.assertEqual((len(rest.split()), len(texts[1].split())), (3, 4))
            if kind == "next":
                self.assertEqual(texts[2], "And the next verse?")
                at = verses.index(f"{rest} {texts[1]}")
                self.assertNotEqual(at % 3, 2, "a chapter's last verse has none that follows")
                self.assertEqual(texts[3], verses[at + 1])
            if task == "Reverse the order of these words":
                self.assertEqual(rest.split(), texts[1].split()[::-1])
                self.assertTrue(3 <= len(rest.split()) <= 6)
            if task == "How many words":
                self.assertEqual(texts[1], str(len(rest.split())))
                self.assertTrue(2 <= len(rest.split()) <= 7)
        self.assertEqual(kinds, dict.fromkeys(("Continue", "next", "Reverse the order of these words", "How many words"), 100))

    def test_chapters_are_held_out_whole(self):
        train, held = made("--count", "400", "--held-out", "0.2")
        self.assertEqual((len(train), len(held)), (320, 80))
        of_train, of_held = (set().union(*map(chapters_of, file)) for file in (train, held))
        self.assertEqual((len(of_train), len(of_held)), (8, 2))
        self.assertFalse(of_train & of_held)

    def test_the_seed_draws_everything(self):
        first, again, other = made("--count", "100"), made("--count", "100", "--seed", "1"), made("--count", "100", "--seed", "2")
        self.assertEqual(first, again)
        self.assertNotEqual(first[0], other[0])

    def test_errors_say_what_is_needed(self):
        with tempfile.TemporaryDirectory() as folder:
            for options, text, says in ((("--count", "3"), TEXT, "make more conversations"),
                                        (("--held-out", "1"), TEXT, "a share between 0 and 1"),
                                        ((), "Call me Ishmael.\n", "no verse"),
                                        ((), "Ge1:1 In the beginning\n", "give more text"),
                                        ((), "Ge1:1 In\nGe2:1 Thus\n", "'continue': give more text"),
                                        (("--text", "no.such.text"), TEXT, "--text no.such.text: No such file")):
                done = run(folder, *options, text=text)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(says, done.stderr)
                self.assertFalse(list(pathlib.Path(folder).glob("*.jsonl")))


if __name__ == "__main__":
    unittest.main()

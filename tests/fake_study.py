"""What the self-tests of tools/parity.py and tools/design_study.py share: a folder that is a repository to a copy of the tools, with
a program in it that stands in for `cachalot`."""
import pathlib
import stat
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))


class Drive(unittest.TestCase):
    FAKE = None  # the program's text; {python} in it is the interpreter
    TOOLS = ()  # the first is what drive() runs

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.at = pathlib.Path(self.folder.name)
        fake = self.at / "cachalot"
        fake.write_text(self.FAKE.format(python=sys.executable))
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        (self.at / "text.txt").write_text("some text")
        (self.at / "tools").mkdir()
        for name in self.TOOLS:
            (self.at / "tools" / name).write_text((ROOT / "tools" / name).read_text())

    def run_tool(self, *arguments):
        line = [sys.executable, str(self.at / "tools" / self.TOOLS[0]), *arguments, "--cachalot", str(self.at / "cachalot"), "--corpus",
                str(self.at / "text.txt")]
        return subprocess.run(line, capture_output=True, text=True, cwd=self.at)

    def starts(self):
        """Every start that the fake program noted."""
        return (self.at / "starts.txt").read_text().split("\n")[:-1]

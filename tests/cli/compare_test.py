"""The parts of scripts/compare that need no PyTorch."""
import stat
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from compare import results  # noqa: E402
from compare.engine import Engine, Failed, NotHere, set_options  # noqa: E402
from compare.results import Result  # noqa: E402


def result(kind, theirs, ours, bar, aim=None, **more):
    return Result(row="r", what="w", kind=kind, unit="s", theirs=theirs, ours=ours, bar=bar, aim=aim, **more)


class Ratios(unittest.TestCase):
    def check(self, ratio, verdict, *args, **more):
        r = result(*args, **more)
        self.assertEqual((r.ratio, r.verdict), (ratio, verdict))

    def test_directions(self):
        self.check(1.5, "aim", "rate", 400, 600, 1.0, 1.1)
        self.check(1.0, "bar", "rate", 600, 600, 1.0, 1.1)
        self.check(0.5, "missed", "rate", 600, 300, 1.0, 1.1)
        self.check(2.0, "aim", "speed-up", 10, 5, 1.1, 1.15)
        self.check(0.5, "missed", "speed-up", 5, 10, 1.1, 1.15)
        self.check(0.8, "aim", "time", 10, 8, 0.9, 0.85)
        self.check(1.25, "missed", "time", 8, 10, 0.9, 0.85)
        self.check(0.5, "bar", "error", 2e-3, 1e-3, 1.0)
        self.check(2.0, "missed", "error", 1e-3, 2e-3, 1.0)

    def test_numbers_without_a_peer(self):
        self.check(2.5, "bar", "share", None, 2.5, 3, 1.5)
        self.check(0.0, "aim", "share", None, 0.0, 3, 1.5)
        self.check(3.5, "missed", "share", None, 3.5, 3, 1.5)
        self.check(1, "bar", "same", None, 1, 1)
        self.check(0, "missed", "same", None, 0, 1)

    def test_what_is_missing(self):
        self.check(None, "failed", "time", 10, None, 0.9, problem="exit 1")
        self.check(None, "bench needs a GPU", "time", 10, None, 0.9, note="bench needs a GPU")
        self.check(None, "-", "time", None, 8, 0.9)

    def test_what_is_not_finite_reaches_nothing(self):
        self.assertEqual(result("error", 1e-3, float("nan"), 1.0).verdict, "missed")
        self.assertEqual(result("rate", 600, float("nan"), 1.0, 1.1).verdict, "missed")


class Tables(unittest.TestCase):
    def setUp(self):
        self.run = {"card": "H200", "date": "2026-01-02", "commit": "abc1234", "software": "PyTorch 2", "left_out": [],
                    "results": [result("time", 22.6, 18.0, 0.9, 0.85), result("error", 2e-3, 1e-3, 1.0)]}
        self.run["results"][1].unit = "error"

    def test_markdown(self):
        text = results.markdown(self.run)
        for part in ("H200, 2026-01-02, commit abc1234", "| w | - | 22.6 s | 18.0 s | 0.80 | ≤ 0.9 | ≤ 0.85 | aim |",
                     "| w | - | 2.00e-03 | 1.00e-03 | 0.50 | ≤ 1 | - | bar |"):
            self.assertIn(part, text)
        self.assertNotIn("Not measured", text)
        self.run["left_out"] = ["a", "b"]
        self.assertIn("Not measured: a; b.", results.markdown(self.run))

    def test_files_of_several_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            one, two = Path(folder) / "1.json", Path(folder) / "2.json"
            results.save(self.run, one)
            self.assertEqual(results.markdown(results.load([one])), results.markdown(self.run))
            self.run["commit"] = "def5678"
            self.run["results"] = [result("time", 22.6, 20.34, 0.9, 0.85)]
            results.save(self.run, two)
            merged = results.load([one, two])
            self.assertEqual(merged["commit"], "abc1234 and def5678")
            self.assertEqual([(r.kind, r.verdict) for r in merged["results"]], [("time", "bar"), ("error", "bar")])


class Moonkiln(unittest.TestCase):
    def engine(self, text, cpu=False):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        program = Path(folder.name) / "moonkiln"
        program.write_text("#!/bin/sh\n" + text + "\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return Engine(str(program), cpu)

    def test_parameters(self):
        self.assertEqual(list(set_options({"a": {"b": 1}, "c": "text", "d": False})),
                         ["--set", 'a={"b": 1}', "--set", "c=text", "--set", "d=false"])

    def test_bench(self):
        report = self.engine("""[ "$1 $3 $4 $5 $6" = "bench --synthetic 1 --iterations 7" ] && echo '{"graph_ms": 2.5}'""")
        self.assertEqual(report.bench("x.lua", {}, iterations=7), {"graph_ms": 2.5})

    def test_failures(self):
        with self.assertRaisesRegex(Failed, "exit 2: moonkiln: no such thing"):
            self.engine("echo 'moonkiln: no such thing' >&2; exit 2").run("x.lua", {})
        with self.assertRaises(Failed):
            Engine("/nowhere/moonkiln", False).run("x.lua", {})
        with self.assertRaisesRegex(Failed, "no report"):
            self.engine("echo nonsense").bench("x.lua", {})
        with self.assertRaises(NotHere):
            self.engine("true", cpu=True).bench("x.lua", {})


if __name__ == "__main__":
    unittest.main()

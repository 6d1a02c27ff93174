"""moonkiln as a subprocess."""
import json
import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "scripts" / "models"
GRAPHS = Path(__file__).resolve().parent / "graphs"


class Failed(Exception):
    """moonkiln ended with an error."""


class NotHere(Exception):
    """This machine cannot do that, and is not expected to."""


class Engine:
    def __init__(self, program, cpu):
        self.program, self.cpu = program, cpu

    def call(self, *arguments, timeout=420):
        environment = {"MOONKILN_DATA": str(REPOSITORY), **os.environ}
        try:
            done = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=environment,
                                  check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(str(error)) from error
        if done.returncode:
            raise Failed(f"exit {done.returncode}: {(done.stderr or done.stdout).strip()[-1500:]}")
        return done.stdout

    def bench(self, script, sets, *options, iterations=5, weights=("--synthetic", 1)):
        """The report of `bench --json`: graph_ms, groups..."""
        if self.cpu:
            raise NotHere("bench needs a GPU")
        text = self.call("bench", script, *weights, "--iterations", iterations, "--json", *options, *set_options(sets))
        try:
            return json.loads(text)
        except ValueError as error:
            raise Failed(f"bench: no report: {text[:200]}") from error

    def run(self, script, sets, *options):
        self.call("run", script, *options, *set_options(sets), *(("--backend", "cpu") if self.cpu else ()))


def set_options(sets):
    for key, value in sets.items():
        yield "--set"
        yield f"{key}={value if isinstance(value, str) else json.dumps(value)}"

"""openai-python's own tests against `realm serve`: `openai_suite.py REALM FOLDER`, the command's path and a folder for the package's
source. Prints the number of tests that pass and those that fail for each reason of `EXPECTED`; exits with 1 if a test fails for
another reason, and if a reason has no test any more.

The suite is written for a mock that answers every call of OpenAI's specification with made-up data. What fails here is a call of
something that Realm does not have, or a value that it refuses; docs/openai.md explains each reason."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
FILES = ["chat", "responses", "test_completions.py", "test_embeddings.py", "test_models.py", "test_responses.py"]
NAMES = ["gpt-6-astra", "gpt-3.5-turbo-instruct", "text-embedding-3-small", "model", "ft:gpt-4o-mini:acemeco:suffix:abc123"]
# The suite's own needs beyond the package's.
NEEDS = ["pytest==9.2.0", "pytest-asyncio==1.5.0", "pytest-xdist==3.8.0", "pytest-timeout==2.4.0", "rich==15.0.0"]

# The reason, and the tests and the failure's words that it explains.
EXPECTED = [
    ("stored answers", r"", r"not_stored|there are no stored"),
    ("deleting a fine-tuned model", r"test_models\.TestA?s?y?n?c?Models.*delete", r"answers GET, not DELETE"),
    ("a response without a model or input", r"test_responses|test_input_tokens", r"input must be a string|model is missing"),
    ("previous_response_id", r"test_responses|test_input_tokens", r"previous_response_id is not supported"),
    ("logit_bias of a word", r"all_params", r"logit_bias must be an object from token ids"),
    ("shortened vectors", r"test_embeddings.*all_params", r"dimensions is 1"),
    ("base64 in the client's strict mode", r"test_embeddings", r"APIResponseValidationError"),
]


def package() -> str:
    """The version of the package that the other tests of clients have."""
    lines = (HERE / "requirements.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("openai=="))


def suite(folder: Path) -> tuple[Path, Path]:
    """Returns the folder of the package's source and a Python that has what its tests need."""
    name = package().replace("==", "-")
    source, python = folder / name, folder / "venv" / "bin" / "python"
    if not source.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), package()]
        subprocess.run(pip, check=True)
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"{source}[aiohttp]", *NEEDS], check=True)
    return source, python


def run(address: str, source: Path, python: Path, report: Path) -> None:
    """Runs the tests; their failures are in the report."""
    tests = [f"tests/api_resources/{file}" for file in FILES]
    options = ["-q", "-n", "2", "--timeout", "120", "-p", "no:cacheprovider", "--tb=line", f"--junitxml={report}"]
    environment = {"TEST_API_BASE_URL": f"{address}/v1", "PYTHONPATH": ".", "PATH": "/usr/bin:/bin"}
    subprocess.run([str(python), "-m", "pytest", *options, *tests], cwd=source, env=environment, stdout=subprocess.DEVNULL, check=False)


def reason(name: str, failure: str) -> str | None:
    return next((why for why, test, words in EXPECTED if re.search(test, name) and re.search(words, failure)), None)


def main() -> None:
    command, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    source, python = suite(folder)
    # Short contexts, since most tests leave the length of the answer to the server.
    config = folder / "realm.toml"
    aliases = "".join(f'"{name}" = "served"\n' for name in NAMES)
    config.write_text(f'[models.served]\nsource = "smollm2-135m"\ncontext-length = 320\nkv-tokens = 8192\n[aliases]\n{aliases}')
    report = folder / "report.xml"
    with subprocess.Popen([command, "serve", "--config", str(config), "--port", "0"], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line)))
            run(address, source, python, report)
        finally:
            server.terminate()
    passed, found, other = 0, Counter[str](), []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        failures = [*case.findall("failure"), *case.findall("error")]
        if not failures:
            passed += 1
            continue
        text = " ".join(f"{failure.get('message') or ''} {failure.text or ''}" for failure in failures)
        why = reason(name, text)
        if why:
            found[why] += 1
        else:
            other.append(f"{name}: {text[:300]}")
    print(f"{passed} passed")
    for why, count in found.most_common():
        print(f"{count} failed as expected: {why}")
    gone = [why for why, _, _ in EXPECTED if not found[why]]
    for line in [*other, *(f"no test fails for the reason `{why}` any more: take it out" for why in gone)]:
        print("FAILED", line)
    sys.exit(bool(other or gone or not passed))


main()

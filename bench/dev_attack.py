"""Attacks `rerankops dev` from a page of another site in Chromium, with the deployment's own window open beside it.

The page asks for an image, a form and a script's request that launch the job `rollback`, which is what Dagster's web
server did for anybody before it had a guard. Then Dagster's own page is opened, to see that it works.

    python -m bench.dev_attack FOLDER [--unguarded]

FOLDER gets the home, the browser's profile and window.png. `--unguarded` starts `dagster dev` itself, for comparison.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import httpx

from bench.folders import ROOT

TOKEN = "a-token-of-the-bench"
_SELECTOR = (
    'selector: {repositoryName: "__repository__", repositoryLocationName: "rerankops", pipelineName: "rollback"}, '
)
MUTATION = f'mutation {{ launchRun(executionParams: {{{_SELECTOR} runConfigData: "{{}}"}}) {{ __typename }} }}'
_RUNS = "{ runsOrError { ... on Runs { results { runId jobName status } } } }"
_PAGE = """<title>attack</title><body>
<img src="{address}/graphql?query={query}">
<form id=f method=post target=sink action="{address}/graphql?query={query}"><input name=query value='{plain}'></form>
<iframe name=sink></iframe><iframe src="{address}/runs"></iframe>
<script>
fetch("{address}/graphql?query={query}", {{mode: "no-cors", credentials: "include"}});
fetch("{address}/graphql", {{method: "POST", mode: "no-cors", credentials: "include",
  headers: {{"Content-Type": "text/plain"}}, body: JSON.stringify({{query: `{plain}`}})}});
document.getElementById("f").submit();
</script>"""


def main() -> None:
    """Attack and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--unguarded", action="store_true")
    options = parser.parse_args()
    folder = options.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with dev(folder, unguarded=options.unguarded) as port, other_site(port) as page:
        window = f"http://127.0.0.1:{port}/jobs"
        if not options.unguarded:
            browse(folder, f"{window}?token={TOKEN}", folder / "window.png")
        browse(folder, page, folder / "attack.png")
        result = {"unguarded": options.unguarded, "launched": runs(port), "window": str(folder / "window.png")}
    print(json.dumps(result, indent=1))


@contextmanager
def dev(folder: Path, *, unguarded: bool) -> Iterator[int]:
    """Dagster's web server and daemon, once they answer: their port."""
    port = free_port()
    environment = {**os.environ, "RERANKOPS_HOME": str(folder / "home"), "RERANKOPS_DEV_TOKEN": TOKEN}
    program = [sys.executable, "-m", "orchestration.cli", "dev", "--port", str(port)]
    if unguarded:
        (folder / "home" / "dagster").mkdir(parents=True)
        environment["DAGSTER_HOME"] = str(folder / "home" / "dagster")
        program = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    with (folder / "dev.log").open("wb") as log:
        child = subprocess.Popen(program, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        while True:
            if child.poll() is not None:
                sys.exit(f"dev ended: see {folder / 'dev.log'}")
            try:
                httpx.get(f"http://127.0.0.1:{port}/server_info", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.5)
        yield port
    finally:
        child.send_signal(signal.SIGINT)
        child.wait()


@contextmanager
def other_site(port: int) -> Iterator[str]:
    """A page of another site: its address. `localhost` is another site than 127.0.0.1."""
    page = _PAGE.format(address=f"http://127.0.0.1:{port}", query=quote(MUTATION), plain=MUTATION).encode()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Send the page."""
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:  # type: ignore[override]  # says nothing
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()


def browse(folder: Path, address: str, picture: Path) -> None:
    """Open an address in Chromium with the profile of `folder`, let its scripts run, and take a picture."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,800", "--disable-dev-shm-usage"]
    program = ["chromium", *options, f"--user-data-dir={folder / 'profile'}", "--timeout=60000"]
    program += ["--virtual-time-budget=30000", f"--screenshot={picture}", address]
    subprocess.run(program, check=True, timeout=240, capture_output=True)


def runs(port: int) -> list[dict[str, str]]:
    """The runs that Dagster knows."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": _RUNS}, headers=headers, timeout=120).json()
    return answer["data"]["runsOrError"]["results"]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()

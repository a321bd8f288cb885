"""A Hub on this machine: the HTTP that `huggingface_hub` speaks to download, to create and to push, and its failures.

Use it with `from loopback_hub import LoopbackHub`, in another process with `hub.environment()`: the client reads the
address once, when it is imported.
"""

import base64
import hashlib
import http.server
import json
import os
import shutil
import threading
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote, urlsplit


TOKEN = "hf_loopbacksecret0123456789"
MAIN = "a" * 40


class LoopbackHub:
    """Serves the folders <root>/<owner>/<name>/<commit>; use it as a context manager.

    Those of data sets are in <root>/datasets/<owner>/<name>/<commit>; such a repository is "datasets/<owner>/<name>".

    Attributes:
        root: Where repositories and uploaded large files are.
        branches: Repository -> branch -> commit. Those not listed have `main`, the commit `MAIN`.
        refused: Repository -> (status, X-Error-Code) for every request about it.
        failures: Part of "METHOD path" -> what goes wrong, once each: a status, or "break" for a broken connection.
        requests: "METHOD path" of all requests.
    """

    def __init__(self, root: Path, branches: dict | None = None, refused: dict | None = None):
        self.root = root
        self.branches = defaultdict(lambda: {"main": MAIN}, branches or {})
        self.refused = refused or {}
        self.failures: dict[str, list[int | str]] = {}
        self.requests: list[str] = []

    def __enter__(self) -> "LoopbackHub":
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, token: str | None = None, **more: str) -> dict[str, str]:
        """The environment of a process that takes this for the Hub."""
        access = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
        return os.environ | access | ({"HF_TOKEN": token} if token else {}) | more

    def folder(self, repository: str, revision: str = "main") -> Path:
        """The files of a repository."""
        return self.root / repository / self.branches[repository].get(revision, revision)

    def files(self, repository: str) -> dict[str, bytes]:
        """Path -> content of everything in a repository."""
        folder = self.folder(repository)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def commit(self, repository: str, branch: str, lines: list[dict]) -> str:
        """Make a new commit of uploaded files, as the lines of a commit's body describe them."""
        commit = hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:40]
        new = self.root / repository / commit
        shutil.copytree(self.folder(repository, branch), new, dirs_exist_ok=True)
        for line in lines:
            value = line["value"]
            if line["key"] in ("file", "lfsFile"):
                path = new / value["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                large = line["key"] == "lfsFile"
                path.write_bytes(
                    (self.root / "lfs" / value["oid"]).read_bytes() if large else base64.b64decode(value["content"])
                )
        self.branches[repository] = self.branches[repository] | {branch: commit}
        return commit


def repository_path(path: str) -> str:
    """What follows "api/" of a request about a repository, as repositories are named here."""
    return path.removeprefix("api/").removeprefix("models/")


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: LoopbackHub

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).lstrip("/")
        if self.fails():
            return
        if path.startswith(("api/models/", "api/datasets/")) and "/tree/" in path:
            self.tree(*repository_path(path).split("/tree/"))
        elif path.startswith(("api/models/", "api/datasets/")):
            repository, _, rest = repository_path(path).partition("/revision/")
            self.model_info(repository, rest or "main")
        elif path == "api/whoami-v2":
            access = {"accessToken": {"displayName": "test", "role": "write"}}
            self.answer_json({"type": "user", "name": "you", "orgs": [], "auth": access} if self.allowed() else None)
        elif "/resolve/" in path:
            repository, _, rest = path.partition("/resolve/")
            self.file(repository, *rest.split("/", 1))
        else:
            self.answer(404, "EntryNotFound")

    do_HEAD = do_GET

    def do_POST(self):
        path = unquote(urlsplit(self.path).path).lstrip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.fails():
            return
        if path == "api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif path.endswith("/verify"):
            self.answer_json({})
        elif not self.allowed():
            self.answer_json(None)
        elif path == "api/repos/create":
            self.create(json.loads(body))
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.answer_json(
                {"transfer": "basic", "objects": [self.lfs(item) for item in json.loads(body)["objects"]]}
            )
        elif "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".png", ".parquet")) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer_json({"files": files})
        elif "/commit/" in path:
            repository, _, branch = repository_path(path).partition("/commit/")
            commit = self.hub.commit(repository, branch, list(map(json.loads, body.splitlines())))
            self.answer_json({"commitUrl": f"{self.hub.url}/{repository}/commit/{commit}", "commitOid": commit})

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.fails():
            (self.hub.root / "lfs").mkdir(exist_ok=True)
            (self.hub.root / "lfs" / Path(self.path).name).write_bytes(body)
            self.answer_json({})

    def create(self, wanted: dict) -> None:
        repository = f"{wanted['organization'] or 'you'}/{wanted['name']}"
        if wanted.get("type") == "dataset":
            repository = f"datasets/{repository}"
        if repository in self.hub.refused:
            self.answer(*self.hub.refused[repository])
            return
        folder = self.hub.folder(repository)
        status = 409 if folder.is_dir() else 200
        folder.mkdir(parents=True, exist_ok=True)
        self.answer_json({"url": f"{self.hub.url}/{repository}"}, status)

    def lfs(self, item: dict) -> dict:
        href = f"{self.hub.url}/lfs/{item['oid']}"
        actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        return item if (self.hub.root / "lfs" / item["oid"]).exists() else item | {"actions": actions}

    def model_info(self, repository: str, revision: str) -> None:
        folder = self.hub.folder(repository, revision)
        if repository in self.hub.refused or not folder.is_dir():
            self.answer(*self.hub.refused.get(repository, (404, "RepoNotFound")))
            return
        siblings = [
            {"rfilename": str(path.relative_to(folder)), "size": path.stat().st_size}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        info = {"id": repository, "modelId": repository, "sha": folder.name, "private": False, "tags": []}
        self.answer_json(info | {"siblings": siblings, "downloads": 0, "likes": 0})

    def tree(self, repository: str, place: str) -> None:
        """List <revision>/<folder>, what lies in inner folders only where the request asks for it."""
        revision, _, inner = place.partition("/")
        folder = self.hub.folder(repository, revision)
        recursive = "recursive=false" not in self.path
        found = (folder / inner).rglob("*") if recursive else (folder / inner).glob("*")
        entries = []
        for path in sorted(found):
            name = str(path.relative_to(folder))
            if path.is_file():
                entries.append({"type": "file", "path": name, "size": path.stat().st_size, "oid": name})
            elif not recursive:
                entries.append({"type": "directory", "path": name, "size": 0, "oid": name})
        self.answer_json(entries)

    def file(self, repository: str, revision: str, filename: str) -> None:
        folder = self.hub.folder(repository, revision)
        if repository in self.hub.refused:
            self.answer(*self.hub.refused[repository])
        elif not folder.is_dir():
            exists = (self.hub.root / repository).is_dir()
            self.answer(404, "RevisionNotFound" if exists else "RepoNotFound")
        elif not (folder / filename).is_file():
            self.answer(404, "EntryNotFound", folder.name)
        else:
            content = (folder / filename).read_bytes()
            if asked := self.headers.get("Range"):  # bytes=<first>-<last>
                first, last = map(int, asked.removeprefix("bytes=").split("-"))
                content = content[first : last + 1]
            self.answer(206 if asked else 200, None, folder.name, content)

    def allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def fails(self) -> bool:
        """Note the request, and let it fail if that is planned."""
        request = f"{self.command} {self.path}"
        self.hub.requests.append(request)
        planned = next((what for part, what in self.hub.failures.items() if part in request and what), None)
        if planned is None:
            return False
        failure = planned.pop(0)
        if failure == "break":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")  # and no more
        else:
            self.answer(failure, None)
        return True

    def answer_json(self, content: dict | list | None, status: int = 200) -> None:
        """Answer with an object; None means that the token is wrong."""
        if content is None:
            self.answer(401, None, content=b'{"error": "Invalid username or password."}')
        else:
            self.answer(status, None, content=json.dumps(content).encode())

    def answer(self, status: int, error_code: str | None, commit: str | None = None, content: bytes = b"") -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()}"' if content else None
        headers = {"X-Error-Code": error_code, "X-Repo-Commit": commit, "ETag": etag}
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Content-Type", "application/json" if commit is None else "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass

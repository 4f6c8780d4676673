"""A Hugging Face Hub in miniature, over real HTTP on the loopback device.

It speaks as much of the protocol as ``huggingface_hub`` 2.4 needs to create repositories, upload through LFS and
download snapshots, checks bearer tokens, and can break a download off. It proves our calls, not the real Hub's answers.
The client reads its environment on import, so it runs in a process of its own: :class:`HubClient`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote, urlsplit

WRITE, READ = "hf_write", "hf_read"


@dataclass
class Repository:
    """Commits of a repository, oldest first: hash and whole content of each."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    references: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        content = {**self.content(branch), **files}
        digest = hashlib.sha1(repr((len(self.commits), sorted(content.items()))).encode()).hexdigest()
        self.commits.append((digest, content))
        self.references[branch] = digest
        return digest

    def resolve(self, revision: str) -> str | None:
        digest = self.references.get(revision, revision)
        return digest if digest in dict(self.commits) else None

    def content(self, revision: str) -> dict[str, bytes]:
        return dict(self.commits).get(self.resolve(revision) or "", {})


class FakeHub:
    """The server; ``with FakeHub() as hub`` runs it in a thread.

    Attributes:
        endpoint: its address.
        repositories: by id.
        requests: method and path of everything that was asked.
        broken: path of a file whose downloads end after this many bytes, for as many times as are left.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.broken: dict[str, tuple[int, int]] = {}
        hub = self

        class BoundHandler(Handler):
            server_hub = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), BoundHandler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, folder: Path, private: bool = False, **others: bytes) -> str:
        """Put a folder's files into a repository, made if need be; returns the commit."""
        repository = self.repositories.setdefault(name, Repository(private))
        return repository.commit({path.name: path.read_bytes() for path in folder.iterdir()} | others)


class Handler(BaseHTTPRequestHandler):
    """Routes of the protocol; every method ``on_*`` answers one."""

    protocol_version = "HTTP/1.1"
    server_hub: FakeHub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.route("GET")

    def do_HEAD(self) -> None:
        self.route("HEAD")

    def do_PUT(self) -> None:
        self.route("PUT")

    def do_POST(self) -> None:
        self.route("POST")

    def route(self, method: str) -> None:
        self.path = unquote(urlsplit(self.path).path)
        self.server_hub.requests.append((method, self.path))
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self.chunks()
        for verb, pattern, answer in ROUTES:
            if method in verb and (found := re.fullmatch(pattern, self.path)):
                return answer(self, **found.groupdict())
        return self.answer(404, {"error": f"no route {method} {self.path}"})

    def chunks(self) -> bytes:
        """A body of unknown length."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def may_write(self) -> bool:
        if self.token() == WRITE:
            return True
        if self.token() == READ:
            self.answer(403, {"error": "forbidden"}, {"X-Error-Message": "you need write permission"})
        else:
            text = "Invalid credentials in Authorization header" if self.token() else "Invalid username or password."
            self.answer(401, {"error": text}, {"X-Error-Message": text})
        return False

    def repository(self, name: str, revision: str | None = None) -> Repository | None:
        """The repository if it exists and the token may see it; otherwise answers."""
        found = self.server_hub.repositories.get(name)
        if found is None or (found.private and self.token() not in (READ, WRITE)):
            self.answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        if revision is not None and found.resolve(revision) is None:
            self.answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return found

    def on_create(self) -> None:
        if not self.may_write():
            return
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        known = name in self.server_hub.repositories
        if not known:
            private = asked.get("private") or asked.get("visibility") == "private"
            self.server_hub.repositories[name] = Repository(bool(private))
            self.server_hub.repositories[name].commit({".gitattributes": b""})
        self.answer(409 if known else 200, {"url": f"{self.server_hub.endpoint}/{name}"})

    def on_branch(self, name: str, revision: str) -> None:
        repository = self.repository(name)
        if repository is not None and self.may_write():
            known = revision in repository.references
            repository.references.setdefault(revision, repository.references["main"])
            self.answer(409 if known else 200, {})

    def on_validate(self) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def on_preupload(self, name: str, revision: str) -> None:
        if self.repository(name, revision) is None or not self.may_write():
            return
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self.answer(200, {"files": modes})

    def on_batch(self, name: str) -> None:
        if not self.may_write():
            return
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.server_hub.endpoint}/lfs/{wanted['oid']}"}
            verify = {"href": f"{self.server_hub.endpoint}/lfs/{wanted['oid']}/verify"}
            known = wanted["oid"] in self.server_hub.large
            objects.append({**wanted, **({} if known else {"actions": {"upload": upload, "verify": verify}})})
        self.answer(200, {"transfer": "basic", "objects": objects})

    def on_upload(self, oid: str) -> None:
        whole = hashlib.sha256(self.body).hexdigest() == oid
        if whole:
            self.server_hub.large[oid] = self.body
        self.answer(200 if whole else 400, {})

    def on_verify(self, oid: str) -> None:
        self.answer(200 if oid in self.server_hub.large else 404, {})

    def on_commit(self, name: str, revision: str) -> None:
        repository = self.repository(name, revision)
        if repository is None or not self.may_write():
            return
        files: dict[str, bytes] = {}
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server_hub.large[value["oid"]]
        digest = repository.commit(files, revision)
        url = f"{self.server_hub.endpoint}/{name}/commit/{digest}"
        self.answer(200, {"commitOid": digest, "commitUrl": url, "success": True})

    def on_revision(self, name: str, revision: str = "main") -> None:
        repository = self.repository(name, revision)
        if repository is not None:
            files = [{"rfilename": path} for path in repository.content(revision)]
            self.answer(200, {"id": name, "sha": repository.resolve(revision), "siblings": files, "private": False})

    def on_tree(self, name: str, revision: str) -> None:
        repository = self.repository(name, revision)
        if repository is not None:
            files = repository.content(revision)
            self.answer(
                200,
                [{"type": "file", "path": path, "size": len(data), "oid": tag(data)} for path, data in files.items()],
            )

    def on_resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.repository(name, revision)
        if repository is None:
            return
        data = repository.content(revision).get(path)
        if data is None:
            return self.answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{tag(data)}"', "X-Repo-Commit": str(repository.resolve(revision))}
        status, start = 200, 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            status, start = 206, int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.send(status, data[start:], headers, self.limit(path))

    def limit(self, path: str) -> int | None:
        """After how many bytes this download breaks off."""
        if self.command == "HEAD" or path not in self.server_hub.broken:
            return None
        after, times = self.server_hub.broken[path]
        if times == 0:
            return None
        self.server_hub.broken[path] = (after, times - 1)
        return after

    def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send(self, status: int, data: bytes, headers: dict[str, str], limit: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Accept-Ranges": "bytes", **headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:limit])
        if limit is not None:
            self.wfile.flush()
            self.close_connection = True


def tag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", Handler.on_create),
    ("POST", "/api/validate-yaml", Handler.on_validate),
    ("POST", f"/api/models/{NAME}/branch/(?P<revision>.+)", Handler.on_branch),
    ("POST", f"/api/models/{NAME}/preupload/(?P<revision>.+)", Handler.on_preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.on_batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", Handler.on_upload),
    ("POST", r"/lfs/(?P<oid>\w+)/verify", Handler.on_verify),
    ("POST", f"/api/models/{NAME}/commit/(?P<revision>.+)", Handler.on_commit),
    ("GET", f"/api/models/{NAME}", Handler.on_revision),
    ("GET", f"/api/models/{NAME}/revision/(?P<revision>.+)", Handler.on_revision),
    ("GET", f"/api/models/{NAME}/tree/(?P<revision>[^/]+)", Handler.on_tree),
    ("GET HEAD", f"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.on_resolve),
]


class HubClient:
    """A process whose Hub is the fake one and whose cache is its own; it runs functions of importable modules.

    Args:
        endpoint: address of the Hub.
        home: folder of the cache.
        token: what ``hf auth login`` would have stored; None is nothing.
        offline: forbid every connection.
    """

    def __init__(self, endpoint: str, home: Path, token: str | None = None, offline: bool = False) -> None:
        environment = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_TOKEN": token or "",
        }
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        with mock.patch.dict(os.environ, environment):
            self.pool.submit(int).result()  # starts the process, which inherits the environment as it is now

    def __call__(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return self.pool.submit(function, *arguments, **named).result(timeout=120)

    def close(self) -> None:
        self.pool.shutdown()

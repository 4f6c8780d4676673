"""A Hugging Face Hub in miniature, over real HTTP on the loopback device.

It speaks as much of the protocol as ``huggingface_hub`` 2.4 needs to create repositories, upload through LFS and
download snapshots, checks bearer tokens, and can break a download off. It proves our calls, not the real Hub's answers.
The client reads its environment on import, so it runs in a process of its own: :class:`HubClient`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from werkzeug import Request, Response
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.serving import make_server

WRITE, READ = "hf_write", "hf_read"
logging.getLogger("werkzeug").setLevel(logging.ERROR)


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


class Refused(HTTPException):
    """An answer that is a fault, as the Hub words it."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        headers = {"X-Error-Message": message} if code is None else {"X-Error-Code": code}
        super().__init__(response=answer({"error": message}, status, headers))


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, mimetype="application/json")


def may_write(request: Request) -> None:
    token = token_of(request)
    if token == READ:
        raise Refused(403, "you need write permission")
    if token != WRITE:
        raise Refused(401, "Invalid credentials in Authorization header" if token else "Invalid username or password.")


def token_of(request: Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def tag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class FakeHub:
    """The server; ``with FakeHub() as hub`` runs it in a thread.

    Every route's endpoint is the method that answers it.

    Attributes:
        endpoint: its address.
        repositories: by id.
        requests: method and path of everything that was asked.
        broken: path of a file whose downloads end after this many bytes, for as many times as are left.
    """

    routes = Map(
        [
            Rule("/api/repos/create", endpoint="create", methods=["POST"]),
            Rule("/api/validate-yaml", endpoint="validate", methods=["POST"]),
            Rule("/api/models/<org>/<model>/branch/<path:revision>", endpoint="branch", methods=["POST"]),
            Rule("/api/models/<org>/<model>/preupload/<path:revision>", endpoint="preupload", methods=["POST"]),
            Rule("/<org>/<model>.git/info/lfs/objects/batch", endpoint="batch", methods=["POST"]),
            Rule("/lfs/<oid>", endpoint="upload", methods=["PUT"]),
            Rule("/lfs/<oid>/verify", endpoint="verify", methods=["POST"]),
            Rule("/api/models/<org>/<model>/commit/<path:revision>", endpoint="commit", methods=["POST"]),
            Rule("/api/models/<org>/<model>", endpoint="describe"),
            Rule("/api/models/<org>/<model>/revision/<path:revision>", endpoint="describe"),
            Rule("/api/models/<org>/<model>/tree/<revision>", endpoint="tree"),
            Rule("/<org>/<model>/resolve/<revision>/<path:path>", endpoint="resolve"),
        ]
    )

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.broken: dict[str, tuple[int, int]] = {}
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        self.requests.append((request.method, request.path))
        try:
            name, found = self.routes.bind_to_environ(environ).match()
            if "org" in found:
                found["name"] = f"{found.pop('org')}/{found.pop('model')}"
            response = getattr(self, name)(request, **found)
        except HTTPException as error:
            response = error.get_response(environ)
        return response(environ, start_response)

    def add(self, name: str, folder: Path, private: bool = False, **others: bytes) -> str:
        """Put a folder's files into a repository, made if need be; returns the commit."""
        repository = self.repositories.setdefault(name, Repository(private))
        return repository.commit({path.name: path.read_bytes() for path in folder.iterdir()} | others)

    def repository(self, request: Request, name: str, revision: str | None = None) -> Repository:
        """The repository, if it exists and the token may see it."""
        found = self.repositories.get(name)
        if found is None or (found.private and token_of(request) not in (READ, WRITE)):
            raise Refused(401, "Repository not found", "RepoNotFound")
        if revision is not None and found.resolve(revision) is None:
            raise Refused(404, "Invalid rev id", "RevisionNotFound")
        return found

    def create(self, request: Request) -> Response:
        may_write(request)
        asked = request.get_json(force=True)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        known = name in self.repositories
        if not known:
            private = asked.get("private") or asked.get("visibility") == "private"
            self.repositories[name] = Repository(bool(private))
            self.repositories[name].commit({".gitattributes": b""})
        return answer({"url": f"{self.endpoint}/{name}"}, 409 if known else 200)

    def branch(self, request: Request, name: str, revision: str) -> Response:
        repository = self.repository(request, name)
        may_write(request)
        known = revision in repository.references
        repository.references.setdefault(revision, repository.references["main"])
        return answer({}, 409 if known else 200)

    def validate(self, request: Request) -> Response:
        return answer({"errors": [], "warnings": []})

    def preupload(self, request: Request, name: str, revision: str) -> Response:
        self.repository(request, name, revision)
        may_write(request)
        paths = [file["path"] for file in request.get_json(force=True)["files"]]
        modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
        unlike = {"shouldIgnore": False, "oid": None}
        return answer({"files": [{"path": path, "uploadMode": mode, **unlike} for path, mode in modes.items()]})

    def batch(self, request: Request, name: str) -> Response:
        may_write(request)
        objects = []
        for wanted in request.get_json(force=True)["objects"]:
            upload = {"href": f"{self.endpoint}/lfs/{wanted['oid']}"}
            verify = {"href": f"{self.endpoint}/lfs/{wanted['oid']}/verify"}
            known = wanted["oid"] in self.large
            objects.append({**wanted, **({} if known else {"actions": {"upload": upload, "verify": verify}})})
        return answer({"transfer": "basic", "objects": objects})

    def upload(self, request: Request, oid: str) -> Response:
        if hashlib.sha256(request.get_data()).hexdigest() != oid:
            raise Refused(400, "not the announced content")
        self.large[oid] = request.get_data()
        return answer({})

    def verify(self, request: Request, oid: str) -> Response:
        return answer({}, 200 if oid in self.large else 404)

    def commit(self, request: Request, name: str, revision: str) -> Response:
        repository = self.repository(request, name, revision)
        may_write(request)
        files: dict[str, bytes] = {}
        for line in request.get_data().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
        digest = repository.commit(files, revision)
        url = f"{self.endpoint}/{name}/commit/{digest}"
        return answer({"commitOid": digest, "commitUrl": url, "success": True})

    def describe(self, request: Request, name: str, revision: str = "main") -> Response:
        repository = self.repository(request, name, revision)
        files = [{"rfilename": path} for path in repository.content(revision)]
        return answer({"id": name, "sha": repository.resolve(revision), "siblings": files, "private": False})

    def tree(self, request: Request, name: str, revision: str) -> Response:
        files = self.repository(request, name, revision).content(revision).items()
        return answer([{"type": "file", "path": path, "size": len(data), "oid": tag(data)} for path, data in files])

    def resolve(self, request: Request, name: str, revision: str, path: str) -> Response:
        repository = self.repository(request, name, revision)
        data = repository.content(revision).get(path)
        if data is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        response = Response(data, headers={"X-Repo-Commit": str(repository.resolve(revision))})
        response.set_etag(tag(data))
        response.make_conditional(request, accept_ranges=True, complete_length=len(data))
        after, times = self.broken.get(path, (0, 0))
        if request.method == "GET" and times:
            self.broken[path] = (after, times - 1)
            response.response = [b"".join(response.iter_encoded())[:after]]  # fewer bytes than were announced
        return response


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

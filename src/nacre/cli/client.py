"""A small OpenStack client for our own commands: they use the public API, as anyone would."""

import ssl
from pathlib import Path
from typing import Any

import httpx
import yaml

from nacre.base.errors import NacreError

#: The newest compute microversion our commands speak.
COMPUTE_VERSION = "2.96"


class ApiError(NacreError):
    """The cloud answered with an error, or not at all."""


class Client:
    """One cloud of a data folder's clouds.yaml. Paths are given as ("compute", "/servers")."""

    def __init__(self, data: Path, cloud: str):
        file = data / "clouds.yaml"
        if not file.exists():
            raise ApiError(f"There is no {file}: start the cloud first with `nacre up --data {data}`.")
        entry = yaml.safe_load(file.read_text())["clouds"][cloud]
        self.auth = entry["auth"]
        try:
            trust = ssl.create_default_context(cafile=entry["cacert"]) if "cacert" in entry else True
        except OSError as error:
            raise ApiError(f"The authority that {file} names cannot be read: {entry['cacert']}: {error}.") from None
        self._http = httpx.Client(timeout=60, trust_env=False, verify=trust)
        self._token: str | None = None
        self._roots: dict[str, str] = {}
        self.project_id = ""

    def _login(self) -> str:
        a = self.auth
        body = {"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": a["username"], "password": a["password"],
                "domain": {"name": a.get("user_domain_name", "Default")}}}},
            "scope": {"project": {"name": a["project_name"],
                                  "domain": {"name": a.get("project_domain_name", "Default")}}}}}
        answer = self._send("POST", a["auth_url"].rstrip("/") + "/auth/tokens", json=body)
        token = answer.json()["token"]
        self.project_id = token["project"]["id"]
        for service in token["catalog"]:
            self._roots[service["type"]] = next(
                x["url"] for x in service["endpoints"] if x["interface"] == "public").rstrip("/")
        return answer.headers["x-subject-token"]

    def _send(self, method: str, url: str, **rest: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, url, **rest)
        except httpx.HTTPError as error:
            raise ApiError(f"{url} does not answer ({error}). Is the cloud up? See `nacre status`.") from None
        if answer.status_code >= 400:
            raise ApiError(f"{method} {url}: {answer.status_code} {answer.text[:500]}")
        return answer

    def request(self, method: str, service: str, path: str, **rest: Any) -> httpx.Response:
        """One call. Raises ApiError with the service's own words."""
        self._token = self._token or self._login()
        root = self._roots[service]
        if service == "network" and not root.endswith("/v2.0"):
            root += "/v2.0"
        if service == "image" and not root.endswith("/v2"):
            root += "/v2"
        headers = {"X-Auth-Token": self._token, **rest.pop("headers", {})}
        if service == "compute":
            headers.setdefault("OpenStack-API-Version", f"compute {COMPUTE_VERSION}")
        return self._send(method, root + path, headers=headers, **rest)

    def get(self, service: str, path: str, **rest: Any) -> Any:
        """The JSON answer of a GET."""
        return self.request("GET", service, path, **rest).json()

    def post(self, service: str, path: str, body: Any, **rest: Any) -> Any:
        """The JSON answer of a POST; None where it has no body."""
        answer = self.request("POST", service, path, json=body, **rest)
        return answer.json() if answer.content else None

"""What our commands say when something is not there: the thing, and what to do; no wire format."""

import json
from typing import Any

import pytest

from nacre.cli.client import Answer, ApiError, Client, Missing
from nacre.cli.plan import ask
from nacre.cli.trace import timeline


class Cloud(Client):
    """A client of answers that are laid down. asked: every URL that was."""

    def __init__(self, answers: dict[str, tuple[int, Any]]):
        self.token, self.roots, self.auth = "t", {"compute": "/compute", "image": "/image"}, {"auth_url": "there"}
        self.answers, self.asked = answers, list[str]()

    def raw(self, method: str, url: str, body: Any = None, headers: Any = None) -> Answer:
        self.asked.append(url)
        status, found = self.answers.get(url.partition("?")[0], (404, {"itemNotFound": {"message": "Not here."}}))
        return Answer(status, {}, found if isinstance(found, bytes) else json.dumps(found).encode())


FLAVORS = (200, {"flavors": [{"id": "1", "name": "m1.tiny"}]})
WANTED: dict[str, Any] = {"flavor": "m1.tiny", "image": None, "count": 1, "zone": None}


@pytest.mark.parametrize("name", ["nosuch", "a(b", "a/b?c"])
def test_a_server_that_is_not_there(name: str) -> None:
    cloud = Cloud({"/compute/servers": (200, {"servers": []})})
    with pytest.raises(ApiError, match=r"^There is no server .*\. Those there are: openstack server list") as said:
        timeline(cloud, name)
    assert f"server {name}." in said.value.message and "404" not in said.value.message
    assert not any("(b" in url or "/b" in url for url in cloud.asked), "names are quoted"


def test_a_plan_without_an_image() -> None:
    with pytest.raises(ApiError, match=r"^There is no image in this cloud yet: make one with `nacre demo`"):
        ask(Cloud({"/compute/flavors": FLAVORS, "/image/images": (200, {"images": []})}), WANTED, {})
    some = (200, {"images": [{"id": "i", "name": "tiny"}]})
    with pytest.raises(ApiError, match=r"^There is no image big; there are: tiny\.$"):
        ask(Cloud({"/compute/flavors": FLAVORS, "/image/images": some}), {**WANTED, "image": "big"}, {})


def test_a_plan_takes_an_image_that_can_be_used() -> None:
    cloud = Cloud({"/compute/flavors": FLAVORS, "/image/images": (200, {"images": [{"id": "i", "name": "tiny"}]}),
                   "/compute/os-nacre-plans": (200, {"plan": {}})})
    assert ask(cloud, WANTED, {}) == {}
    assert "/image/images?status=active" in cloud.asked


@pytest.mark.parametrize(("body", "words"), [
    ({"badRequest": {"code": 400, "message": "Too much."}}, "Too much."), ({"message": "Plain."}, "Plain."),
    ({"NeutronError": {"type": "X", "message": "Net."}}, "Net."), (b"<html>gone</html>", "<html>gone</html>"),
    (b"", ""), ([1], "[1]")])
def test_an_error_is_said_in_the_services_words(body: Any, words: str) -> None:
    for status, kind in ((400, ApiError), (404, Missing)):
        with pytest.raises(kind) as said:
            Cloud({"/compute/x": (status, body)}).get("compute", "/x")
        assert said.value.message == f"GET /compute/x: {status} {words}"

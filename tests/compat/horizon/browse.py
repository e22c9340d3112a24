"""Headless Chromium goes through Horizon; run by the Python of Horizon's own environment, as it needs selenium.

    browse.py walk|launch URL USER PASSWORD FIRST-PAGE...

`walk` opens each page that a page links to once (ids left out of account), starting with those named; `launch` makes
a server with the dialog and deletes it. A JSON object for each page is printed: path, title, the banners of errors, and
what the browser's console held against it.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
           "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1400")
ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
ELSEWHERE = re.compile(r"/static/|/auth/|switch|openrc|clouds\.yaml|download|theme|language")
# Neither jQuery nor Angular waits for an answer.
IDLE = """if (document.readyState != 'complete' || (window.jQuery && jQuery.active)) return false;
try { const found = angular.element(document.body).injector();
      return !found || !found.get('$http').pendingRequests.length; }
catch (e) { return true; }"""
LINKS = """return [...document.querySelectorAll('#sidebar a[href^="/"], #content_body a[href^="/"]')]
.map(a => a.getAttribute('href'))"""


class Browser:
    def __init__(self, url: str) -> None:
        options = webdriver.ChromeOptions()
        for word in OPTIONS:
            options.add_argument(word)
        options.binary_location = "/usr/bin/chromium"
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.url = url
        self.driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
        self.driver.set_page_load_timeout(120)

    def until(self, holds: Callable[[], Any], seconds: float = 60) -> Any:
        """What `holds` answers once it is true. Raises when it is not within so many seconds."""
        end = time.monotonic() + seconds
        while True:
            try:
                if found := holds():
                    return found
            except WebDriverException:  # the page is being drawn anew
                if time.monotonic() > end:
                    raise
            if time.monotonic() > end:
                raise TimeoutError(f"{self.driver.current_url}: {self.banners()}")
            time.sleep(0.2)

    def settle(self) -> None:
        for _ in range(2):
            self.until(lambda: self.driver.execute_script(IDLE))
            time.sleep(0.1)

    def find(self, how: str, what: str) -> WebElement:
        """The first visible element that is found so, waited for."""
        found: WebElement = self.until(lambda: next(
            (e for e in self.driver.find_elements(how, what) if e.is_displayed() and e.is_enabled()), None))
        return found

    def click(self, how: str, what: str) -> None:
        def clicked() -> bool:
            self.find(how, what).click()
            return True
        self.until(clicked)
        self.settle()

    def banners(self) -> list[str]:
        return [e.text for e in self.driver.find_elements(By.CSS_SELECTOR, ".alert-danger, .alert-warning") if e.text]

    def open(self, path: str) -> dict[str, Any]:
        self.driver.get(self.url + path)
        self.settle()
        return self.told(path)

    def told(self, path: str) -> dict[str, Any]:
        console = [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]
        return {"path": path, "title": self.driver.title, "banners": self.banners(), "console": console}

    def login(self, user: str, password: str) -> None:
        self.open("/auth/login/")
        self.find(By.ID, "id_username").send_keys(user)
        self.find(By.ID, "id_password").send_keys(password)
        self.click(By.ID, "loginBtn")


def shape(path: str) -> str:
    return ID.sub("ID", path if "?tab=" in path else urlsplit(path).path)


def walk(browser: Browser, pages: list[str]) -> None:
    seen: set[str] = set()
    while pages:
        path = pages.pop(0)
        if shape(path) in seen:
            continue
        seen.add(shape(path))
        print(json.dumps(browser.open(path)), flush=True)
        pages += [link for link in browser.driver.execute_script(LINKS) if not ELSEWHERE.search(link)]


def launch(browser: Browser) -> None:
    """The dialog with one image, flavor and network chosen; then the row's menu."""
    row = "//tr[.//a[normalize-space()='by-hand']]"
    browser.open("/project/instances/")
    browser.click(By.ID, "instances__action_launch-ng")
    browser.find(By.NAME, "name").send_keys("by-hand")
    for step, wanted in (("Source", "tiny"), ("Flavor", "m1.nano"), ("Networks", "demo")):
        browser.click(By.XPATH, f"//wizard//a[.//text()[contains(., '{step}')]]")
        button = f"//tr[td[normalize-space()='{wanted}']]//*[contains(@class, 'fa-arrow-%s')]"
        if step != "Networks" or not browser.driver.find_elements(By.XPATH, button % "down"):  # the only one is chosen
            browser.click(By.XPATH, button % "up")
    print(json.dumps(browser.told("launch")), flush=True)
    browser.click(By.CSS_SELECTOR, "button.finish")
    browser.find(By.XPATH, f"{row}[.//td[normalize-space()='Active']]")
    print(json.dumps(browser.told("launched")), flush=True)
    browser.click(By.XPATH, f"{row}//*[contains(@class, 'dropdown-toggle')]")
    browser.click(By.XPATH, f"{row}//*[contains(@id, 'action_delete')]")
    browser.click(By.CSS_SELECTOR, ".modal-footer .btn-danger, .modal-footer .btn-primary")
    browser.until(lambda: not browser.driver.find_elements(By.XPATH, row))
    print(json.dumps(browser.told("deleted")), flush=True)


def main(what: str, url: str, user: str, password: str, *pages: str) -> None:
    browser = Browser(url)
    try:
        browser.login(user, password)
        if what == "walk":
            walk(browser, list(pages))
        else:
            launch(browser)
    except Exception:
        browser.driver.save_screenshot(f"{what}.png")
        raise
    finally:
        browser.driver.quit()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Kubernetes' API server as a client sees it: requests, and lists that a watch keeps current."""

import http.client
import json
import ssl
import threading
import time

ADDRESS = ("10.200.0.1", 6443)
TOKEN = "cluster-admin"
MERGE = "application/merge-patch+json"
TIMEOUT = 20


class ApiError(Exception):
    """An answer with an error status."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status


def connect(timeout=TIMEOUT):
    """A connection whose server is not verified: nothing but the test can be reached in its network."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(*ADDRESS, context=context, timeout=timeout)


LOCAL = threading.local()


def request(method, path, body=None, content_type="application/json"):
    """Sends one request over the thread's connection and returns the decoded answer. Raises ApiError, or OSError when
    the server does not answer."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json", "Content-Type": content_type}
    data = None if body is None else json.dumps(body)
    for last in (False, True):
        connection = getattr(LOCAL, "connection", None)
        if connection is None:
            connection = LOCAL.connection = connect()
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            raw = response.read()
            break
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            LOCAL.connection = None
            # The first failure may only mean that the server closed an idle connection.
            if last:
                raise OSError(str(error)) from error
    answer = json.loads(raw) if raw.startswith(b"{") else {"message": raw.decode(errors="replace")}
    if response.status >= 400:
        raise ApiError(response.status, answer.get("message"))
    return answer


def get(path):
    """The object at a path, or None where there is none."""
    try:
        return request("GET", path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def unless_gone(method, path, body=None, content_type="application/json"):
    """A request for which an object that is gone, or was replaced by another, is no error."""
    try:
        return request(method, path, body, content_type)
    except ApiError as error:
        if error.status in (404, 409):
            return None
        raise


def key(item):
    """Namespace and name of an object."""
    return item["metadata"].get("namespace"), item["metadata"]["name"]


class Watched:
    """The objects of one path, kept current. `changed(kind, object)` is called from the watch's own thread."""

    def __init__(self, path, changed=None):
        self.path = path
        self.objects = {}
        self.changed = changed or (lambda kind, item: None)
        self.listed = threading.Event()
        threading.Thread(target=self._run, name=f"watch {path}", daemon=True).start()

    def of(self, namespace):
        """The objects of a namespace."""
        return [item for (place, _), item in list(self.objects.items()) if place == namespace]

    def _run(self):
        while True:
            try:
                self._follow(self._list())
            except (OSError, http.client.HTTPException, ApiError, ValueError):
                # The API server may be away for a while: that is among the things that are tried.
                time.sleep(1)

    def _list(self):
        answer = request("GET", self.path)
        before = self.objects
        self.objects = {key(item): item for item in answer["items"]}
        for name, item in self.objects.items():
            self.changed("MODIFIED" if name in before else "ADDED", item)
        for name, item in before.items():
            if name not in self.objects:
                self.changed("DELETED", item)
        self.listed.set()
        return answer["metadata"]["resourceVersion"]

    def _follow(self, version):
        connection = connect(timeout=330)
        separator = "&" if "?" in self.path else "?"
        path = f"{self.path}{separator}watch=1&timeoutSeconds=300&resourceVersion={version}"
        connection.request("GET", path, None, {"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        for line in response:
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            item = event["object"]
            objects = dict(self.objects)
            if event["type"] == "DELETED":
                objects.pop(key(item), None)
            else:
                objects[key(item)] = item
            self.objects = objects
            self.changed(event["type"], item)

"""A label of the Kubernetes node while it is warm, so that servers can be sent to where their weights are.

Needs nothing but the permission to ``patch`` the node.  What the label should be is said again and again, so that
whatever happened to it meanwhile is put right; at the end it is taken away.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

VALUE = "true"

_SECONDS = 2.5


class Label:
    """One label of this node.

    Args:
        key: its key.
        environment: has the API server's address, and the node's name in ``NODE_NAME``.
        account: folder of the service account's token and certificate.
    """

    def __init__(self, key: str, environment: Mapping[str, str], account: str = ACCOUNT) -> None:
        self._key = key
        self._account = account
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        self._node = environment.get("NODE_NAME", "")
        self._server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self.failure = "" if host else "this is no pod of Kubernetes (no KUBERNETES_SERVICE_HOST)"
        if host and not self._node:
            self.failure = "NODE_NAME is not set: take it from the field spec.nodeName"
        self._possible = not self.failure
        self.present = False
        self.failures = 0

    def say(self, warm: bool) -> bool:
        """Have the node's label be there, or not; return whether that is so now.

        Asks every time: somebody else may have changed it.  Nothing is raised; ``failure`` has the reason.
        """
        if not self._possible:
            return False
        body = json.dumps({"metadata": {"labels": {self._key: VALUE if warm else None}}}).encode()
        url = f"{self._server}/api/v1/nodes/{urllib.parse.quote(self._node, safe='')}"
        try:
            with open(os.path.join(self._account, "token"), encoding="ascii") as file:  # it is renewed now and then
                token = file.read().strip()
            context = ssl.create_default_context(cafile=os.path.join(self._account, "ca.crt"))
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
            request = urllib.request.Request(url, body, headers, method="PATCH")  # noqa: S310 - always https
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
            )
            with opener.open(request, timeout=_SECONDS) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            self.failure = f"HTTP {error.code} from the Kubernetes API"
            if error.code == 403:
                self.failure += f": the service account may not patch the node {self._node}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.failure = f"the Kubernetes API cannot be asked: {error}"
        else:
            self.failure = ""
            self.present = warm
            return True
        self.failures += 1
        return False

"""A server that is quick to start and speaks just enough of the OpenAI API: ``server.py --port N``.

``STUB_SECONDS`` is how long it sleeps before it listens, ``STUB_TEXT`` what it answers.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = os.environ.get("STUB_TEXT", "hello from the stub")
NAME = "stub"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        known = {"/health": {}, "/v1/models": {"object": "list", "data": [{"id": NAME, "object": "model"}]}}
        body = json.dumps(known.get(self.path)).encode()
        self.send_response(200 if self.path in known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        right = request["model"] == NAME and request["stream"] and request["temperature"] == 0
        self.send_response(200 if right else 404)
        self.end_headers()
        first = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
        words = [{"choices": [{"delta": {"content": word + " "}}]} for word in TEXT.split()]
        for event in [first, *words, {"choices": []}]:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_words):
        """Say nothing."""


time.sleep(float(os.environ.get("STUB_SECONDS", "0.3")))
ThreadingHTTPServer(("0.0.0.0", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()

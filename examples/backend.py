"""A web application whose users watch their own reports, live, and nothing else. Python's standard library alone.

    taskhub init && taskhub serve --config taskhub.toml --origins http://127.0.0.1:8000
    TASKHUB_TOKEN="$(taskhub token create --role operator --name app)" python3 examples/backend.py
    xdg-open 'http://127.0.0.1:8000/?as=ann'

The application knows its users; here whoever says `?as=NAME` is that one. Its own token stays here. A page gets a token for the one
task that it shows, without the payload, and fetches another before that one expires.
"""
import json, os, pathlib
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

HUB = os.environ.get("TASKHUB_URL", "http://127.0.0.1:8080")
TOKEN = os.environ["TASKHUB_TOKEN"]
TTL_MS = int(os.environ.get("TTL_MS", "600000"))
WEB = pathlib.Path(__file__).parent.parent / "web"
SCRIPTS = {script.name for script in WEB.glob("*.js")}

PAGE = """<!doctype html>
<meta charset="utf-8"><title>Your report</title>
<h1>Your report</h1> <progress id="bar" max="100" value="0"></progress> <output id="word">…</output>
<script type="module">
  import { connect } from '/web/taskhub.js';
  const [hub, task_id] = [%s, %s];
  const token = async () => {
    const answer = await fetch('/token?task_id=' + task_id);
    if (!answer.ok) throw new Error('this is not your report');
    return answer.json();
  };
  const live = connect(hub, { token });
  live.on('status', ({ status }) => (document.body.dataset.live = status));
  const show = ({ status, progress }) => {
    bar.value = status === 'completed' ? 100 : progress?.percentage ?? 0;
    word.value = [status, progress?.message].filter(Boolean).join(': ');
  };
  const task = live.task(task_id);
  task.on('change', show);
  task.on('progress', (progress, task) => show(task));
</script>
"""


def ask_hub(path, body):
    head = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    return json.load(urlopen(Request(f"{HUB}/api/v1{path}", json.dumps(body).encode(), head), timeout=10))


class Application(BaseHTTPRequestHandler):
    reports = {}  # whose each is

    def do_GET(self):
        address = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        user = asked.get("as") or getattr(SimpleCookie(self.headers.get("Cookie", "")).get("user"), "value", None)
        try:
            if address.path == "/token":
                self.token(user, asked.get("task_id"))
            elif address.path.removeprefix("/web/") in SCRIPTS:
                self.answer(200, "text/javascript", (WEB / address.path.removeprefix("/web/")).read_bytes())
            elif address.path == "/" and user:
                self.report(user)
            else:
                self.answer(404, "text/plain", b"there is no such page; /?as=NAME is yours")
        except HTTPError as refusal:  # the hub's word is not for the page
            self.answer(502, "text/plain", b"the hub refused")
        except OSError:
            self.answer(503, "text/plain", b"the hub is away")

    def report(self, user):
        task = ask_hub("/tasks", {"task_type": "report", "user_id": user, "payload": {"of": user}})
        self.reports[task["task_id"]] = user
        page = PAGE % (json.dumps(HUB), json.dumps(task["task_id"]))
        self.answer(200, "text/html", page.encode(), cookie=f"user={user}; HttpOnly; SameSite=Strict")

    def token(self, user, task_id):
        if self.reports.get(task_id) != user or not user:
            return self.answer(403, "text/plain", b"this is not your report")
        asked = {"allow": ["read"], "filter": {"task_id": [task_id]}, "hide": ["payload"], "ttl_ms": TTL_MS}
        self.answer(201, "application/json", json.dumps(ask_hub("/tokens", asked)).encode())

    def answer(self, status, kind, body, cookie=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Application)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
